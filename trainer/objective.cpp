#include "trainer/objective.h"

#include <algorithm>
#include <cstdint>

namespace smoe {

double CrossEntropy::count(const StepBatch& batch) const {
  return static_cast<double>(
      std::count_if(batch.targets.begin(), batch.targets.end(), [](std::int32_t t) { return t >= 0; }));
}

void CrossEntropy::loss_and_gradient(Context& context, Mixtral& model, const StepBatch&, const TokenBatch& tokens,
                                     double scale, Mixtral::Saved& saved, const Tensor& total) {
  model.head_gradient(context, tokens, scale, {}, saved, label_smoothing_);
  context.backend.sum(saved.losses, total);
}

}  // namespace smoe
