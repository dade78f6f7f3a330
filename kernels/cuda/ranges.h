// What a profiler shows of a run (Nsight Systems): each op, and the parts of the step that the host names, as ranges of NVTX.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace smoe::cuda {

// In front of `backend`, whose ops are then ranges. Without a profiler it is the backend itself, and nothing is paid.
std::unique_ptr<Backend> with_ranges(std::unique_ptr<Backend> backend);

}  // namespace smoe::cuda
