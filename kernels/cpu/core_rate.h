// The yardstick that cannot be slow: what the cores themselves do, fused multiply-adds on registers without any memory.
// No library takes part in it, so a product, a step or an op held against it shows the library's weakness too.
#pragma once

#include <span>

#include "kernels/cpu/cpu_features.h"

namespace smoe::cpu {

struct CoreRate {
  double flops_per_second = 0;  // f32, a fused multiply-add counts two; all threads together
  const char* form = "";        // the vectors that reached it: "AVX-512", "AVX2", or what the build was compiled for
};

// Runs every form that `features` allow on `threads` threads at once, in short rounds, and keeps the fastest round.
// Threads that share a core count as one core. A quota of a container (cgroup cpu.max) is not seen: bursts pass it.
// Throws std::logic_error where threads < 1.
CoreRate measure_core_rate(int threads, const CpuFeatures& features = cpu_features());

// One thread's part of a round, in seconds: from when to when by the clock, and how long it was on a core meanwhile.
struct ThreadRound {
  double begin = 0, end = 0, ran = 0;
};

struct CoreRound {
  double seconds = 0;        // from the first thread's beginning to the last one's end
  bool undisturbed = false;  // no thread was off its core for long
};

// All threads compute alike, and the round lasts until the last is done. So two threads that share a core, whether it has
// two or the system lends it in turns, count as the one core that they are.
CoreRound join_threads(std::span<const ThreadRound> threads);

}  // namespace smoe::cpu
