// One part of a matrix product, computed by one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/product.h"

namespace smoe::cpu {

struct GemmTile {
  std::int64_t m, n, k;
  std::int64_t a, b, c;  // where its operands begin, in elements of the tensors
  ProductKernel kernel;  // of the whole product
};

// Cuts one product into about `count` equal tiles, fewer where they would be too small to be worth it.
void append_tiles(std::vector<GemmTile>& tiles, Gemm kind, const GemmTile& whole, std::int64_t count);

}  // namespace smoe::cpu
