// The yardstick that cannot be slow: what the cores themselves do, fused multiply-adds on registers without any memory.
// No library takes part in it, so a product, a step or an op held against it shows the library's weakness too.
#pragma once

#include "kernels/cpu/cpu_features.h"

namespace smoe::cpu {

struct CoreRate {
  double flops_per_second = 0;  // f32, a fused multiply-add counts two; all threads together
  const char* form = "";        // the vectors that reached it: "AVX-512", "AVX2", or what the build was compiled for
};

// Runs every form that `features` allow on `threads` threads at once, a few milliseconds each, and keeps the fastest:
// a thread's rate is the best of its rounds, for a core lent to somebody else in one of them is no slower for that.
// Throws std::logic_error where threads < 1.
CoreRate measure_core_rate(int threads, const CpuFeatures& features = cpu_features());

}  // namespace smoe::cpu
