#include <chrono>

#include "kernels/cpu/cpu_backend.h"

namespace smoe {

double CpuBackend::do_measure_memory_rate(const Tensor& room) {
  using Clock = std::chrono::steady_clock;
  const std::int64_t n = room.elements() / 3;
  float* a = room.f32();
  const float *b = a + n, *c = b + n;
  const auto start = Clock::now();
#pragma omp parallel for simd schedule(static) num_threads(threads_)
  for (std::int64_t i = 0; i < n; ++i) a[i] = b[i] + 3.0f * c[i];
  return 12.0 * static_cast<double>(n) / std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace smoe
