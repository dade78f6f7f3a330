#include "trainer/kept_sequence.h"

#include <algorithm>
#include <cstddef>

namespace smoe {

void next_logits(InferenceModel& model, std::span<const std::int32_t> ids, KvCache* cache, Mixtral::Saved& saved,
                 std::vector<float>& out) {
  Context context = model.fresh_context();
  const auto length = static_cast<std::int64_t>(ids.size());
  const TokenBatch batch =
      make_token_batch(context.backend, context.activations, 1, length, ids, {}, {}, cache ? cache->length : 0);
  if (cache)
    model.model().forward_cached(context, batch, *cache, saved);
  else
    model.model().forward(context, batch, Keep::nothing, saved);
  const Tensor logits = context.activations.take({1, model.shape().vocab_size});
  model.model().logits(context, saved.hidden.rows(length - 1, 1), logits);
  out.resize(static_cast<std::size_t>(logits.elements()));
  context.backend.copy_to_host(out.data(), logits);
}

void KeptSequence::reserve(std::int64_t positions) {
  if (positions <= cache_.capacity) return;
  // Twice as much, so that a conversation that grows turn by turn does not move in each.
  const std::int64_t twice = 2 * cache_.capacity, most = model_->shape().max_position_embeddings;
  held_.clear();
  cache_ = {};
  model_->persistent().rewind(mark_);
  cache_ = model_->model().make_cache(model_->persistent(), std::max(positions, std::min(twice, most)));
}

const std::vector<float>& KeptSequence::logits_after(std::span<const std::int32_t> ids) {
  // The last id is computed again where all are kept: its logits are not.
  const std::span<const std::int32_t> before = ids.first(ids.size() - 1);
  const auto differs = std::mismatch(held_.begin(), held_.end(), before.begin(), before.end()).first;
  held_.erase(differs, held_.end());
  cache_.length = static_cast<std::int64_t>(held_.size());
  const std::span<const std::int32_t> rest = ids.subspan(held_.size());
  next_logits(*model_, rest, &cache_, saved_, logits_);
  held_.insert(held_.end(), rest.begin(), rest.end());
  computed_ += static_cast<std::int64_t>(rest.size());
  return logits_;
}

}  // namespace smoe
