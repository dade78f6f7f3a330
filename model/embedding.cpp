#include "model/embedding.h"

namespace smoe {

Embedding::Embedding(ParameterSet& parameters, const ModelConfig& config)
    : table_(parameters.add({.name = "model.embed_tokens.weight", .shape = {config.vocab_size, config.hidden_size},
                             .replicas = Replicas::tensor_parallel, .initial_std = static_cast<float>(config.initializer_range)})) {}

Tensor Embedding::forward(Context& context, const Tensor& ids) const {
  Tensor y = context.activations.take({ids.dim(0), table_.slice[1]});
  context.backend.embedding_forward(ids, table_.value, y);
  return y;
}

void Embedding::backward(Context& context, const Tensor& ids, const Tensor& dy) const {
  context.backend.embedding_backward(ids, dy, table_.gradient);
}

}  // namespace smoe
