// Token embedding: y[t] = table[ids[t]]. With tensor parallelism each rank holds a run of the vocabulary's rows: it looks
// up all T ids of the micro-batch, and the sum over ranks leaves each with the rows of its own tokens.
//
// In training noise may be added (NEFTune, arXiv 2310.05914): to each entry a number drawn from the batch's half width of its
// token times [-1, 1). The gradient is that of the table without it.
#pragma once

#include "model/context.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class Embedding {
 public:
  Embedding(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh);

  Tensor forward(Context& context, const TokenBatch& batch) const;             // ids [T] i32 -> [T/tp,D]
  void backward(Context& context, const Tensor& ids, const Tensor& dy) const;  // dy [T/tp,D]

 private:
  const Parameter& table_;  // [V,D], rows split over tp
  std::int64_t vocabulary_;
};

}  // namespace smoe
