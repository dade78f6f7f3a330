#include "kernels/yardstick.h"

#include <algorithm>
#include <chrono>

namespace smoe {
namespace {
bool on_cpu(const Backend& backend) { return backend.device() == Device::cpu; }
}  // namespace

Yardstick::Yardstick(Backend& backend, std::int64_t n, std::int64_t elements)
    : backend_(backend),
      arena_(backend),
      a_(on_cpu(backend) ? arena_.take({n, n}) : Tensor()),
      b_(on_cpu(backend) ? arena_.take({n, n}) : Tensor()),
      c_(on_cpu(backend) ? arena_.take({n, n}) : Tensor()),
      room_(arena_.take({elements})) {
  if (on_cpu(backend)) {
    backend.fill(a_, 0.5f);
    backend.fill(b_, 0.25f);
  }
  backend.fill(room_, 1.0f);
  product();  // the first product and the first walk pay for their memory
  memory();
}

double Yardstick::cores() { return backend_.measure_profile().peak_flops; }

double Yardstick::product() {
  if (!on_cpu(backend_)) return cores();
  using Clock = std::chrono::steady_clock;
  backend_.synchronize();
  const auto start = Clock::now();
  backend_.gemm(Gemm::nt, a_, b_, c_, Write::assign);
  backend_.synchronize();
  const double n = static_cast<double>(a_.dim(0));
  return 2 * n * n * n / std::chrono::duration<double>(Clock::now() - start).count();
}

double Yardstick::memory() { return backend_.measure_memory_rate(room_); }

double Yardstick::copy() {
  const std::int64_t half = room_.elements() / 2;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const Stamp before = backend_.stamp();
    backend_.copy(room_.rows(half, half), room_.rows(0, half));
    const Stamp after = backend_.stamp();
    backend_.synchronize();
    best = std::max(best, 8.0 * static_cast<double>(half) / backend_.seconds_between(before, after));
  }
  return best;
}

}  // namespace smoe
