#include "kernels/cpu/cpu_backend.h"

#include <omp.h>

#include "kernels/cpu/bf16_edges.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/core_rate.h"
#include "kernels/cpu/gemm_tile.h"

namespace smoe {

CpuBackend::CpuBackend(int threads)
    : threads_(threads > 0 ? threads : omp_get_max_threads()), per_thread_(static_cast<std::size_t>(threads_)) {
  cpu::reserve_work_areas(threads_);
}

CpuBackend::~CpuBackend() = default;

DeviceProfile CpuBackend::measure_profile() {
  const cpu::CoreRate cores = cpu::measure_core_rate(threads_);
  return {cpu::cpu_name() + " (" + cpu::to_string(cpu::cpu_features()) + ")", threads_,
          "OpenBLAS " + cpu::blas_kernel_name(), cores.flops_per_second, cores.form};
}

std::unique_ptr<Backend> make_cpu_backend(int threads) {
  if (threads > 0) omp_set_num_threads(threads);  // for the few loops outside this folder
  return std::make_unique<Bf16Edges>(std::make_unique<CpuBackend>(threads));
}

}  // namespace smoe
