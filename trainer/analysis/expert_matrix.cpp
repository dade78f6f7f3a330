#include "trainer/analysis/expert_matrix.h"

#include <stdexcept>

namespace smoe {

ExpertMatrix::ExpertMatrix(Context& context, ParameterSet& parameters, const LoraConfig* lora, std::size_t layer,
                           std::size_t expert, const std::string& name) {
  const std::string path =
      "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(expert) + "." + name;
  const Parameter* const weight = parameters.find(path + ".weight");
  if (!weight) throw std::logic_error("no parameter " + path + ".weight: all experts are wanted, which one rank holds");
  weight_ = weight->value;
  follows_previous_ = weight->follows_previous;
  const Parameter* const a = parameters.find(path + ".lora_A.weight");
  if (!a) return;
  if (!lora) throw std::logic_error(path + " has an adapter, and its configuration was not given");
  const Tensor& b = parameters.find(path + ".lora_B.weight")->value;
  DiagonalBlocks one;
  one.add({0, b.dim(0), 0, b.dim(1)});
  const Tensor scaled = context.scratch.take(b.type(), {1, b.dim(0), b.dim(1)});
  context.backend.spread_blocks(one, lora->scale(), b.reshape({1, b.elements()}), scaled);
  scaled_b_ = scaled.reshape(b.shape());
  a_ = a->value;
}

Tensor ExpertMatrix::rows(Context& context, std::int64_t first, std::int64_t count) const {
  if (!adapted()) return weight_.rows(first, count);
  const Tensor sum = context.scratch.take(weight_.type(), {count, columns()});
  write(context, first, sum);
  return sum;
}

void ExpertMatrix::write(Context& context, std::int64_t first, const Tensor& to) const {
  const std::int64_t count = to.dim(0);
  context.backend.copy(to, weight_.rows(first, count));
  if (adapted()) context.backend.gemm(Gemm::nn, scaled_b_.rows(first, count), a_, to, Write::add);
}

}  // namespace smoe
