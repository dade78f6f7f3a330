// What a run will be, in figures, before it starts.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run_config.h"
#include "parallel/layout.h"

namespace smoe {

// Bytes of activations that a rank holds at once, at the peak of backward. An estimate, from the activations that the
// layers keep; what a run really takes is peak_memory_bytes of its metrics.
std::uint64_t estimated_activation_bytes(const RunConfig& config, const Layout& layout);

// Parameters (exact), tokens and arithmetic of a step, memory beside what this machine has. Several lines.
// config.model holds its shape: a model taken `from` a directory has been resolved.
// ranks_on_node: how many share this machine.
std::string describe_run(const RunConfig& config, const Layout& layout, int ranks_on_node);

}  // namespace smoe
