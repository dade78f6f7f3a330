// One optimizer step of a configuration, watched op by op and collective by collective on every rank: `smoe bench --trace`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "trainer/assemble.h"
#include "trainer/trace_events.h"

namespace smoe {

struct StepTrace {
  std::string file;                // trace_file() of all ranks; the root's alone
  std::vector<StepShares> shares;  // by rank, on all of them
  std::string forced_routing{};    // see describe(ForcedRouting); empty: the routers choose
};

// Builds the model, with weights and tokens of chance (`from` and data are not read), takes a step that nobody watches and one
// that is watched and forgotten, lets all ranks meet, and traces the third. What is traced begins with an update and ends with
// the gradient's norm: one turn of training's loop, cut where the weights that an update spreads are still on their way
// when forward begins.
//
// Ranks of one machine have one clock. Of several, each rank's times count from where all have met, which they leave one
// after the other. All ranks call it.
StepTrace trace_step(const TrainerConfig& config, const Mesh& mesh, std::unique_ptr<Backend> backend);

// One line a rank: what its step went into.
std::string describe(const StepTrace& trace);

}  // namespace smoe
