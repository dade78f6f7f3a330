// One matrix product on one thread: by the library, or by kernels of our own where rows are few.
//
// A library packs both operands before it computes. With few rows of A, an expert's with few tokens or those of one new
// token, packing all the weights costs as much as the arithmetic, and writing them again more than reading them once.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"

namespace smoe::cpu {

enum class ProductKernel : std::uint8_t {
  library,   // blas.h
  few_rows,  // packs A, and of B one panel at a time: at most most_few_rows rows, nt, and nn where B is small
  dots,      // packs nothing, reads B once: at most most_dot_rows rows, nt
};

constexpr std::int64_t most_few_rows = 128;
constexpr std::int64_t most_dot_rows = 2;
constexpr std::int64_t most_cached_numbers = 1 << 16;  // of B, nn: 256 KiB, which a second-level cache holds beside A

// The one that was measured to be faster (docs/performance.md), for a product of so many rows with a B of n x k numbers. It is
// chosen for the whole product, before that is cut into tiles: how many threads there are changes no sum.
ProductKernel product_kernel_for(Gemm kind, std::int64_t rows, std::int64_t n, std::int64_t k,
                                 const CpuFeatures& features);
ProductKernel product_kernel_for(Gemm kind, std::int64_t rows, std::int64_t n, std::int64_t k);  // on this CPU

// c [m,n] = or += a b, operands as in enum Gemm; lda, ldb, ldc are row strides. Allocates nothing.
void product(ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
             std::int64_t lda, const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);

void few_rows_product(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                      const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);
void dot_product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                 std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);

}  // namespace smoe::cpu
