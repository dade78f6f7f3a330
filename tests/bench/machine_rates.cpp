#include "tests/bench/machine_rates.h"

#include <chrono>

namespace smoe::bench {
namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
}  // namespace

MachineRates::MachineRates(Backend& backend, std::int64_t n, std::int64_t elements, int threads)
    : backend_(backend), arena_(backend), a_(arena_.take({n, n})), b_(arena_.take({n, n})), c_(arena_.take({n, n})),
      x_(arena_.take({elements})), y_(arena_.take({elements})), z_(arena_.take({elements})), threads_(threads) {
  backend.fill(a_, 0.5f);
  backend.fill(b_, 0.25f);
  backend.fill(y_, 1.0f);
  backend.fill(z_, 2.0f);
  multiply_adds();  // the first product and the first walk pay for their memory
  triad();
}

double MachineRates::multiply_adds() {
  const auto start = Clock::now();
  backend_.gemm(Gemm::nt, a_, b_, c_, false);
  backend_.synchronize();
  const double n = static_cast<double>(a_.dim(0));
  return 2 * n * n * n / seconds_since(start);
}

double MachineRates::triad() {
  const std::int64_t elements = x_.elements();
  float* x = x_.f32();
  const float *y = y_.f32(), *z = z_.f32();
  const auto start = Clock::now();
#pragma omp parallel for simd schedule(static) num_threads(threads_)
  for (std::int64_t i = 0; i < elements; ++i) x[i] = y[i] + 3.0f * z[i];
  return 12.0 * static_cast<double>(elements) / seconds_since(start);
}

}  // namespace smoe::bench
