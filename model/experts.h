// The experts of one layer, computed together: y = w2(routing weight * silu(w1 x) * w3 x) on the rows sorted by expert.
// Each expert's w1 and w3 lie one behind the other, so that one product makes gate and up.
#pragma once

#include <string>

#include "model/context.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class Experts {
 public:
  struct Saved {
    Tensor x;            // [R,D] rows sorted by expert
    Tensor h;            // [R,2F] gate | up, consumed by backward
    Tensor row_weights;  // [R]
    ExpertRows rows;
    RowNumbers numbers;
  };

  // `count` experts starting at `first` of the model's: those of this rank of the ep group.
  Experts(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, std::int64_t first,
          std::int64_t count, const LoraConfig* lora = nullptr, int layer = 0);

  void forward(Context& context, const Tensor& x, const Tensor& row_weights, const ExpertRows& rows,
               const RowNumbers& numbers, Saved& saved, const Tensor& y) const;
  // dy [R,D] is overwritten with dx. drow_weights [R] is assigned.
  void backward(Context& context, const Tensor& dy_then_dx, Saved& saved, const Tensor& drow_weights) const;

 private:
  std::int64_t intermediate_;
  GroupedLinear gate_up_;  // [E,2F,D]
  GroupedLinear down_;     // [E,D,F]
};

}  // namespace smoe
