// What a run will be, in figures, before it starts.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run_config.h"
#include "parallel/layout.h"

namespace smoe {

// Parameters (exact), tokens and arithmetic of a step, memory beside what this machine has. Several lines.
// config.model holds its shape: a model taken `from` a directory has been resolved.
// ranks_sharing_memory: how many share this machine, or the GPU of this rank.
std::string describe_run(const RunConfig& config, const Layout& layout, int ranks_sharing_memory);
// The line that joins it where a micro-batch was computed.
std::string describe_rehearsal(std::uint64_t activation_bytes);

}  // namespace smoe
