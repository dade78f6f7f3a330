// One part of a matrix product, computed by one thread.
#pragma once

#include <cstdint>

#include "kernels/cpu/product.h"

namespace smoe::cpu {

struct GemmTile {
  std::int64_t m, n, k;
  const float *a, *b;
  float* c;
  ProductKernel kernel;  // of the whole product
};

}  // namespace smoe::cpu
