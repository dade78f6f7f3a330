// Reads this rank's sequences of every step ahead of time, on a thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/shards/batch.h"
#include "data/shards/dataset.h"
#include "data/shards/sampler.h"

namespace smoe {

// The global batch is cut into micro-steps of n * M sequences, M = micro_batch_size, and of each rank r of n takes
// sequences [r * M, (r + 1) * M). So what all ranks together compute at once are neighbours in the global batch, and
// the same ones wherever n * M is the same.
//
// Once warm it allocates nothing of its own. Errors: std::logic_error for arguments that do not fit together;
// what goes wrong on the thread is thrown by the next() that would have returned the batch, and by those after it.
class Loader {
 public:
  // datasets[i] is source i of the sampler; all have the same sequence length and packing. prefetch: batches read ahead, at least 1.
  Loader(std::vector<std::shared_ptr<const Dataset>> datasets, Sampler sampler, std::int64_t micro_batch_size,
         std::int64_t dp_rank, std::int64_t dp_size, std::int64_t first_step, std::int64_t prefetch = 2);
  ~Loader();  // stops the thread after the sequence that it is reading
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The batch of first_step, then of the steps after it, without end. Valid until the next call.
  const Batch& next();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smoe
