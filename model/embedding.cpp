#include "model/embedding.h"

#include "kernels/range.h"
#include "model/vocabulary_split.h"
#include "parallel/token_split.h"

namespace smoe {

Embedding::Embedding(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh)
    : table_(parameters.add(vocabulary_parameter("model.embed_tokens.weight", config, mesh))),
      vocabulary_(config.vocab_size) {}

Tensor Embedding::forward(Context& context, const Tensor& ids) const {
  const Range range(context.backend, "embedding");
  const TokenSplit split(context.mesh);
  const Tensor y = context.activations.take(table_.type, {split.local(ids.dim(0)), table_.slice[1]});
  const ArenaScope scope(context.scratch);
  const Tensor term = split.term(context.scratch, y);
  context.backend.embedding_forward(ids, table_.value, table_.first[0], vocabulary_, term);
  split.sum_back(term, y, "embedding.sum");
  return y;
}

void Embedding::backward(Context& context, const Tensor& ids, const Tensor& dy) const {
  const Range range(context.backend, "embedding");
  const ArenaScope scope(context.scratch);
  const Tensor all = TokenSplit(context.mesh).gather(context.scratch, dy, "embedding.gather_gradient");
  context.backend.embedding_backward(ids, all, table_.first[0], vocabulary_, table_.gradient);
}

}  // namespace smoe
