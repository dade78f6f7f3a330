// How much the routers still move: the same few sequences go through the model whenever a row of metrics is written, and
// what their tokens choose is held against what they chose before. Training tells no such thing, because its tokens are
// others in every step. Routers that are told to balance may go on trading experts long after loads look even.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/shards/dataset.h"
#include "model/context.h"
#include "model/mixtral.h"

namespace smoe {

class RouterProbe {
 public:
  // The first `sequences` samples of the data set, or as many as it has; at_once: of them, at most, in one forward of a rank.
  RouterProbe(std::shared_ptr<const Dataset> dataset, std::int64_t sequences, std::int64_t at_once);
  std::int64_t sequences() const { return sequences_; }

  // Of each layer's assignments, the share whose expert the token had not chosen when this was called before; nothing the
  // first time. The choice is that of inference: no noise, no capacity, nothing forced. All ranks call it, with weights that
  // are there (TrainingStep::settle); it rewinds both arenas.
  std::vector<double> changed(Mixtral& model, Context context);

 private:
  std::shared_ptr<const Dataset> dataset_;
  std::int64_t sequences_, at_once_;
  std::vector<std::vector<std::int32_t>> before_;  // [L] each [T,K] of this rank's tokens
};

// As many sequences as a probe takes of a run unless it is told: those whose forward is at most one part in 120 of what a rank
// computes between two rows, a forward being a third of a step, and as many on each of the dp ranks, which wait for each
// other; at most 32, which is thousands of assignments a layer. 0 where there is no room for one.
constexpr std::int64_t probe_sequences(std::int64_t log_interval, std::int64_t global_batch_size, std::int64_t dp) {
  constexpr std::int64_t most = 32, sequences_a_probe = 40;
  const std::int64_t of_a_rank =
      log_interval >= most * sequences_a_probe ? most : log_interval * (global_batch_size / dp) / sequences_a_probe;
  return of_a_rank < most && of_a_rank * dp < most ? of_a_rank * dp : most;
}

}  // namespace smoe
