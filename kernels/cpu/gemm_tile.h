// One part of a matrix product, computed by one thread.
#pragma once

#include <cstdint>

namespace smoe::cpu {

struct GemmTile {
  std::int64_t m, n, k;
  const float *a, *b;
  float* c;
};

}  // namespace smoe::cpu
