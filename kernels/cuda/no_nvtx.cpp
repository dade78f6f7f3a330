// What stands for ranges.cpp in a build without NVTX's headers: a profiler sees kernels, and nothing around them.
#include <memory>

#include "kernels/cuda/ranges.h"

namespace smoe::cuda {

std::unique_ptr<Backend> with_ranges(std::unique_ptr<Backend> backend) { return backend; }

}  // namespace smoe::cuda
