#include "kernels/cpu/product.h"

#include <stdexcept>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/vectors.h"

namespace smoe::cpu {

// The few rows' kernel is written for the registers of AVX2: on AVX-512 the library's are twice as wide, and a build for less
// than AVX2 would not have them. A panel of B is its rows in nt, one stream each; in nn it is 64 bytes of every row, which
// memory gives at half its rate, so there B must be in a cache.
ProductKernel product_kernel_for(Gemm kind, std::int64_t rows, std::int64_t n, std::int64_t k,
                                 const CpuFeatures& features) {
  if (kind == Gemm::nt && rows <= most_dot_rows) return ProductKernel::dots;
  const bool fits = kind == Gemm::nt || (kind == Gemm::nn && n * k <= most_cached_numbers);
  if (fits && rows <= most_few_rows && features.avx2_fma && !features.avx512 && built_for_avx2)
    return ProductKernel::few_rows;
  return ProductKernel::library;
}

ProductKernel product_kernel_for(Gemm kind, std::int64_t rows, std::int64_t n, std::int64_t k) {
  static const CpuFeatures features = cpu_features();
  return product_kernel_for(kind, rows, n, k, features);
}

void product(ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
             std::int64_t lda, const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  switch (kernel) {
    case ProductKernel::library: return sgemm(kind, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
    case ProductKernel::few_rows: return few_rows_product(kind, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
    case ProductKernel::dots: return dot_product(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
  }
  throw std::logic_error("unknown product kernel");
}

}  // namespace smoe::cpu
