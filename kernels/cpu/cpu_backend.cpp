#include "kernels/cpu/cpu_backend.h"

#include <omp.h>

#include "kernels/cpu/gemm_tile.h"

namespace smoe {

CpuBackend::CpuBackend(int threads)
    : threads_(threads > 0 ? threads : omp_get_max_threads()), per_thread_(static_cast<std::size_t>(threads_)) {}

CpuBackend::~CpuBackend() = default;

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  if (threads > 0) omp_set_num_threads(threads);  // for the few loops outside this folder
  return std::make_unique<CpuBackend>(threads);
}

}  // namespace smoe
