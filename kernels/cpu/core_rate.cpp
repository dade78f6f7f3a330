#include "kernels/cpu/core_rate.h"

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <vector>

namespace smoe::cpu {
namespace {
using Clock = std::chrono::steady_clock;

constexpr int fewest_rounds = 12, most_rounds = 40;
// Of a round: 0.3 ms at 3 GHz on two pipes. Not fitted to the machine by a first try: one that another program interrupted
// would ask for rounds so short that starting them is all that is measured.
constexpr long turns = 150'000;

// Independent sums: as many as cover a latency of 5 cycles on two pipes (Haswell; newer CPUs take 4), and few enough for 16
// registers.
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
[[gnu::target("avx512f,avx512dq,avx512bw,avx512cd,avx512vl,prefer-vector-width=512")]] float avx512_form(long count,
                                                                                                         float seed) {
  return multiply_adds<16>(count, seed);
}
[[gnu::target("avx")]] float avx_form(long count, float seed) { return multiply_adds<8>(count, seed); }
[[gnu::target("avx2,fma")]] float avx2_form(long count, float seed) { return multiply_adds<8>(count, seed); }
#endif
float compiled_form(long count, float seed) { return multiply_adds<4>(count, seed); }

std::vector<Form> forms(const CpuFeatures& features) {
  return {
#if defined(__x86_64__)
    {"AVX-512", features.avx512, 16, avx512_form}, {"AVX2", features.avx2_fma, 8, avx2_form},
        {"AVX", features.avx && !features.avx2_fma, 8, avx_form},
#endif
        {"128 bits", !features.avx2_fma, 4, compiled_form},
  };
}

double seconds_on_a_core() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

ThreadRound run(const Form& form) {
  const double begin = seconds_now(), before = seconds_on_a_core();
  volatile float kept = form.run(turns, 1e-3f);
  static_cast<void>(kept);
  const double ran = seconds_on_a_core() - before;
  return {begin, seconds_now(), ran};
}

// The best round counts: a core that is lent to another program in one of them is no slower for that. On a busy machine
// there are more rounds, until all threads were on a core from beginning to end of one.
double best_rate(const Form& form, int threads) {
  std::vector<ThreadRound> of(static_cast<std::size_t>(threads));
  const auto all_run = [&] {
#pragma omp parallel num_threads(threads)
    {
      ThreadRound& mine = of[static_cast<std::size_t>(omp_get_thread_num())];
#pragma omp barrier
      mine = run(form);
    }
    return join_threads(of);
  };
  all_run();  // wakes cores and threads
  double fastest = std::numeric_limits<double>::infinity();
  bool undisturbed = false;
  for (int r = 0; r < fewest_rounds || (r < most_rounds && !undisturbed); ++r) {
    const CoreRound round = all_run();
    fastest = std::min(fastest, round.seconds);
    undisturbed |= round.undisturbed;
  }
  return 2.0 * static_cast<double>(turns) * chains * form.lanes * threads / fastest;
}

}  // namespace

CoreRound join_threads(std::span<const ThreadRound> threads) {
  ThreadRound all = threads.front();
  for (const ThreadRound& each : threads)
    all = {std::min(all.begin, each.begin), std::max(all.end, each.end), std::max(all.ran, each.ran)};
  const double seconds = std::max(all.end - all.begin, 1e-9);
  return {seconds, seconds < 1.2 * all.ran};
}

CoreRate measure_core_rate(int threads, const CpuFeatures& features) {
  if (threads < 1) throw std::logic_error("measure_core_rate: threads must be positive");
  CoreRate fastest;
  for (const Form& form : forms(features)) {
    if (!form.allowed) continue;
    const double total = best_rate(form, threads);
    if (total > fastest.flops_per_second) fastest = {total, form.name};
  }
  return fastest;
}

}  // namespace smoe::cpu
