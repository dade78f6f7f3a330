// An objective that is not the product's: cross-entropy in which each target weighs what its id says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "trainer/objective.h"

namespace smoe::test {

class WeightedCrossEntropy final : public Objective {
 public:
  explicit WeightedCrossEntropy(std::vector<float> weight_of_id) : weight_of_id_(std::move(weight_of_id)) {}

  double weight(std::int32_t target) const {
    return target < 0 ? 0.0 : static_cast<double>(weight_of_id_[static_cast<std::size_t>(target)]);
  }

  double count(const StepBatch& batch) const override {
    double total = 0;
    for (const std::int32_t target : batch.targets) total += weight(target);
    return total;
  }
  void loss_and_gradient(Context& context, Mixtral& model, const StepBatch& part, const TokenBatch& tokens,
                         double scale, Mixtral::Saved& saved, const Tensor& total) override {
    weights_.clear();
    for (const std::int32_t target : part.targets) weights_.push_back(static_cast<float>(weight(target)));
    const Tensor weights = context.activations.take({tokens.tokens()});
    context.backend.copy_from_host(weights, weights_.data());
    model.head_gradient(context, tokens, scale, weights, saved);
    losses_.resize(weights_.size());
    context.backend.copy_to_host(losses_.data(), saved.losses);
    double sum = 0, before = 0;
    for (std::size_t t = 0; t < losses_.size(); ++t)
      sum += static_cast<double>(weights_[t]) * static_cast<double>(losses_[t]);
    context.backend.copy_to_host(&before, total);
    sum += before;
    context.backend.copy_from_host(total, &sum);
  }

 private:
  std::vector<float> weight_of_id_, weights_, losses_;
};

// Weights that differ by a factor of ten and add up exactly; every fifth id weighs nothing.
inline std::vector<float> uneven_weights(std::int64_t vocabulary) {
  std::vector<float> weights;
  for (std::int64_t id = 0; id < vocabulary; ++id)
    weights.push_back(id % 5 == 0 ? 0.0f : 0.25f * static_cast<float>(1 + id * 7 % 11));
  return weights;
}

}  // namespace smoe::test
