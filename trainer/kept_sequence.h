// A sequence whose keys and values stay between one text and the next: what a conversation's next prompt repeats of it is
// not computed again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "model/context.h"
#include "model/mixtral.h"
#include "trainer/inference.h"

namespace smoe {

class KeptSequence {
 public:
  // Memory is the model's persistent arena's, of which nobody else takes any until this goes.
  explicit KeptSequence(InferenceModel& model) : model_(&model), mark_(model.persistent().mark()) {}
  ~KeptSequence() { model_->persistent().rewind(mark_); }
  KeptSequence(const KeptSequence&) = delete;
  KeptSequence& operator=(const KeptSequence&) = delete;

  // Makes room for that many positions, or more; what is kept is dropped where it has to move.
  void reserve(std::int64_t positions);
  // The logits [V] of the id that follows on these, as many as there is room for: only those behind the longest beginning
  // that is kept are computed, and then kept too. The last one always is.
  const std::vector<float>& logits_after(std::span<const std::int32_t> ids);

  std::int64_t room() const { return cache_.capacity; }
  std::int64_t computed() const { return computed_; }  // ids, since it was made

 private:
  InferenceModel* model_;
  Arena::Mark mark_;
  KvCache cache_;
  std::vector<std::int32_t> held_;  // ids whose keys and values the cache has
  Mixtral::Saved saved_;            // of which only the memory is used again
  std::vector<float> logits_;
  std::int64_t computed_ = 0;
};

// Logits [V] of the last of `ids`: behind those that the cache holds, or, without one, from the start. saved is nothing
// that the next call needs but its memory of the host, which is dear where it is page-locked.
void next_logits(InferenceModel& model, std::span<const std::int32_t> ids, KvCache* cache, Mixtral::Saved& saved,
                 std::vector<float>& out);

}  // namespace smoe
