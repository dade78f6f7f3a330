#include "kernels/cpu/product_bf16.h"

#include <algorithm>
#include <cstddef>

#include "kernels/cpu/parallel.h"

namespace smoe::cpu {
namespace {

constexpr std::int64_t block_depth = 1024;       // of the sum, widened at once
constexpr std::int64_t block_numbers = 1 << 16;  // of B, at least: 256 KiB widened

void widen(const Bf16* from, std::int64_t stride, std::int64_t rows, std::int64_t columns, float* to) {
  for (std::int64_t r = 0; r < rows; ++r, from += stride, to += columns) {
#pragma omp simd
    for (std::int64_t i = 0; i < columns; ++i) to[i] = widened(from[i]);
  }
}

void narrow(const float* from, std::int64_t rows, std::int64_t columns, Bf16* to, std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, from += columns, to += stride) {
#pragma omp simd
    for (std::int64_t i = 0; i < columns; ++i) to[i] = rounded(from[i]);
  }
}

// Depth by depth and, in each, columns by columns. C is f32, `more` numbers of room lie behind what the blocks take.
struct Blocks {
  std::int64_t depth, columns, a, b;

  Blocks(std::int64_t m, std::int64_t n, std::int64_t k)
      : depth(std::min(k, block_depth)),
        columns(std::min(n, round_up(std::max(m, ceil_div(block_numbers, std::max<std::int64_t>(depth, 1))), 16))),
        a(round_up(m * depth, 16)),
        b(round_up(columns * depth, 16)) {}

  void multiply(float* room, ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k,
                const Bf16* pa, std::int64_t lda, const Bf16* pb, std::int64_t ldb, float* c, std::int64_t ldc,
                bool accumulate) const {
    float *wide_a = room, *wide_b = room + a;
    if (k == 0) return product(kernel, kind, m, n, k, wide_a, 1, wide_b, 1, c, ldc, accumulate);
    for (std::int64_t at = 0; at < k; at += depth) {
      const std::int64_t d = std::min(depth, k - at);
      const bool a_by_depth = kind == Gemm::tn, b_by_depth = kind != Gemm::nt;
      widen(a_by_depth ? pa + at * lda : pa + at, lda, a_by_depth ? d : m, a_by_depth ? m : d, wide_a);
      for (std::int64_t j = 0; j < n; j += columns) {
        const std::int64_t w = std::min(columns, n - j);
        widen(b_by_depth ? pb + at * ldb + j : pb + j * ldb + at, ldb, b_by_depth ? d : w, b_by_depth ? w : d, wide_b);
        product(kernel, kind, m, w, d, wide_a, a_by_depth ? m : d, wide_b, b_by_depth ? w : d, c + j, ldc,
                accumulate || at > 0);
      }
    }
  }
};

}  // namespace

void product_of_bf16(Workspace& room, ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Bf16* a, std::int64_t lda, const Bf16* b, std::int64_t ldb, float* c, std::int64_t ldc,
                     bool accumulate) {
  const Blocks blocks(m, n, k);
  blocks.multiply(room.take<float>(static_cast<std::size_t>(blocks.a + blocks.b)), kernel, kind, m, n, k, a, lda, b,
                  ldb, c, ldc, accumulate);
}

void product_of_bf16(Workspace& room, ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Bf16* a, std::int64_t lda, const Bf16* b, std::int64_t ldb, Bf16* c, std::int64_t ldc,
                     bool accumulate) {
  const Blocks blocks(m, n, k);
  float* memory = room.take<float>(static_cast<std::size_t>(blocks.a + blocks.b + m * n));
  float* wide_c = memory + blocks.a + blocks.b;
  if (accumulate) widen(c, ldc, m, n, wide_c);
  blocks.multiply(memory, kernel, kind, m, n, k, a, lda, b, ldb, wide_c, n, accumulate);
  narrow(wide_c, m, n, c, ldc);
}

}  // namespace smoe::cpu
