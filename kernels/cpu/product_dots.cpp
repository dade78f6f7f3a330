// y = x W^T for one or two rows of x: the rows of W are read once, as they lie, each multiplied with x along its length.
// That is what a new token's generation is made of, and it runs at the memory's rate.
#include <stdexcept>

#include "kernels/cpu/product.h"
#include "kernels/cpu/vectors.h"

namespace smoe::cpu {
namespace {

using Size = std::int64_t;

[[gnu::always_inline]] inline float sum_of(V8 v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// One row of W after the other: a single stream, which the hardware foresees across rows. Four sums along it keep the
// adders busy.
template <int rows>
void product_of_rows(Size n, Size k, const float* a, Size lda, const float* b, Size ldb, float* c, Size ldc,
                     bool accumulate) {
  for (Size j = 0; j < n; ++j) {
    const float* w = b + j * ldb;
    V8 sum[rows][4] = {};
    Size p = 0;
    for (; p + 32 <= k; p += 32)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const V8 part = load8(w + p + 8 * u);
#pragma GCC unroll 2
        for (int i = 0; i < rows; ++i) sum[i][u] += part * load8(a + i * lda + p + 8 * u);
      }
    for (int i = 0; i < rows; ++i) {
      float total = sum_of((sum[i][0] + sum[i][1]) + (sum[i][2] + sum[i][3]));
      for (Size q = p; q < k; ++q) total += a[i * lda + q] * w[q];
      float& to = c[i * ldc + j];
      to = accumulate ? to + total : total;
    }
  }
}

}  // namespace

void dot_product(Size m, Size n, Size k, const float* a, Size lda, const float* b, Size ldb, float* c, Size ldc,
                 bool accumulate) {
  if (m > most_dot_rows) throw std::logic_error("dot_product: too many rows");
  if (m == 1) product_of_rows<1>(n, k, a, lda, b, ldb, c, ldc, accumulate);
  if (m == 2) product_of_rows<2>(n, k, a, lda, b, ldb, c, ldc, accumulate);
}

}  // namespace smoe::cpu
