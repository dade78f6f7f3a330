#include "kernels/cpu/core_rate.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <vector>

namespace smoe::cpu {
namespace {
using Clock = std::chrono::steady_clock;

constexpr int rounds = 8;
constexpr double round_seconds = 0.5e-3;

// Independent sums: as many as cover a latency of 5 cycles on two pipes, and few enough for 16 registers.
constexpr int chains = 12;

template <int lanes>
using Vector [[gnu::vector_size(lanes * sizeof(float))]] = float;

// `count` multiply-adds on each chain. The chains start apart and end in the result, so that the compiler can neither
// merge them nor leave them out; they stay near 1, where no number is slow.
template <int lanes>
[[gnu::always_inline]] inline float multiply_adds(long count, float seed) {
  Vector<lanes> sum[chains], factor, addend;
  for (int c = 0; c < chains; ++c) sum[c] = Vector<lanes>{} + (1.0f + seed * static_cast<float>(c));
  factor = Vector<lanes>{} + 0.5f;
  addend = Vector<lanes>{} + 0.5f;
  for (long i = 0; i < count; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < chains; ++c) sum[c] = sum[c] * factor + addend;
    __asm__ volatile("");  // one turn is one turn: nothing is computed ahead
  }
  for (int c = 1; c < chains; ++c) sum[0] += sum[c];
  float result = 0;
  for (int i = 0; i < lanes; ++i) result += sum[0][i];
  return result;
}

struct Form {
  const char* name;
  bool allowed;
  int lanes;
  float (*run)(long count, float seed);
};

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512dq,avx512bw,avx512cd,avx512vl,prefer-vector-width=512")]] float avx512_form(long count, float seed) {
  return multiply_adds<16>(count, seed);
}
[[gnu::target("avx2,fma")]] float avx2_form(long count, float seed) { return multiply_adds<8>(count, seed); }
#endif
float compiled_form(long count, float seed) { return multiply_adds<4>(count, seed); }

std::vector<Form> forms(const CpuFeatures& features) {
  return {
#if defined(__x86_64__)
      {"AVX-512", features.avx512, 16, avx512_form},
      {"AVX2", features.avx2_fma, 8, avx2_form},
#endif
      {"128 bits", !features.avx2_fma, 4, compiled_form},
  };
}

double flops_per_second(const Form& form, long count) {
  const auto start = Clock::now();
  volatile float kept = form.run(count, 1e-3f);
  static_cast<void>(kept);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return 2.0 * static_cast<double>(count) * chains * form.lanes / std::max(seconds, 1e-9);
}

// What one thread reaches: the first round wakes the core and finds how many turns fill the next ones.
double best_rate(const Form& form) {
  double best = flops_per_second(form, 20'000);
  for (int r = 0; r < rounds; ++r) {
    const auto count = static_cast<long>(best * round_seconds / (2.0 * chains * form.lanes));
    best = std::max(best, flops_per_second(form, std::max(count, 1000l)));
  }
  return best;
}

}  // namespace

CoreRate measure_core_rate(int threads, const CpuFeatures& features) {
  if (threads < 1) throw std::logic_error("measure_core_rate: threads must be positive");
  CoreRate fastest;
  for (const Form& form : forms(features)) {
    if (!form.allowed) continue;
    double total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
#pragma omp barrier
      total += best_rate(form);
    }
    if (total > fastest.flops_per_second) fastest = {total, form.name};
  }
  return fastest;
}

}  // namespace smoe::cpu
