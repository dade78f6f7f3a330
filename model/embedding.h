// Token embedding: y[t] = table[ids[t]].
#pragma once

#include "model/context.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class Embedding {
 public:
  Embedding(ParameterSet& parameters, const ModelConfig& config);

  Tensor forward(Context& context, const Tensor& ids) const;  // ids [T] i32 -> [T,D]
  void backward(Context& context, const Tensor& ids, const Tensor& dy) const;

 private:
  const Parameter& table_;  // [V,D]
};

}  // namespace smoe
