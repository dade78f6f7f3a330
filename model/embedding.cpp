#include "model/embedding.h"

#include <cstdint>

#include "kernels/range.h"
#include "model/vocabulary_split.h"
#include "parallel/token_split.h"

namespace smoe {
namespace {
constexpr std::uint32_t noise_layer = 0xffffffff;  // below it are the layers, whose routers draw by the same key
}

Embedding::Embedding(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh)
    : table_(parameters.add(vocabulary_parameter("model.embed_tokens.weight", config, mesh))),
      vocabulary_(config.vocab_size) {}

Tensor Embedding::forward(Context& context, const TokenBatch& batch) const {
  const Range range(context.backend, "embedding");
  const TokenSplit split(context.mesh);
  const std::int64_t tokens = split.local(batch.tokens()), first = split.first(batch.tokens());
  const Tensor y = context.activations.take(table_.type, {tokens, table_.slice[1]});
  const ArenaScope scope(context.scratch);
  const Tensor term = split.term(context.scratch, y);
  context.backend.embedding_forward(batch.ids, table_.value, table_.first[0], vocabulary_, term);
  split.sum_back(term, y, "embedding.sum");
  if (batch.noise && !batch.embedding_noise.empty())
    context.backend.add_noise({batch.noise->key, batch.noise->first_token + first, noise_layer, 1.0f},
                              batch.embedding_noise.rows(first, tokens), y);
  return y;
}

void Embedding::backward(Context& context, const Tensor& ids, const Tensor& dy) const {
  const Range range(context.backend, "embedding");
  const ArenaScope scope(context.scratch);
  const Tensor all = TokenSplit(context.mesh).gather(context.scratch, dy, "embedding.gather_gradient");
  context.backend.embedding_backward(ids, all, table_.first[0], vocabulary_, table_.gradient);
}

}  // namespace smoe
