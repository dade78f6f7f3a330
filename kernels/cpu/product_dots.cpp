// y = x W^T for one or two rows of x: the rows of W are read once, as they lie, each multiplied with x along its length.
// That is what a new token's generation is made of, and it runs at the memory's rate.
#include "kernels/cpu/product.h"
#include "kernels/cpu/vectors.h"

namespace smoe::cpu {
namespace {

using Size = std::int64_t;

float sum_of(V8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// Rows of x times `columns` rows of W at once: enough sums for the adders to be busy, and streams for the memory.
template <int rows, int columns>
void dots(Size k, const float* a, Size lda, const float* b, Size ldb, float* c, Size ldc, bool accumulate) {
  V8 sum[rows][columns] = {};
  Size p = 0;
  for (; p + 8 <= k; p += 8)
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) {
      const V8 w = load8(b + j * ldb + p);
#pragma GCC unroll 2
      for (int i = 0; i < rows; ++i) sum[i][j] += w * load8(a + i * lda + p);
    }
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) {
      float total = sum_of(sum[i][j]);
      for (Size q = p; q < k; ++q) total += a[i * lda + q] * b[j * ldb + q];
      float& to = c[i * ldc + j];
      to = accumulate ? to + total : total;
    }
}

template <int rows>
void product_of_rows(Size n, Size k, const float* a, Size lda, const float* b, Size ldb, float* c, Size ldc, bool accumulate) {
  Size j = 0;
  for (; j + 4 <= n; j += 4) dots<rows, 4>(k, a, lda, b + j * ldb, ldb, c + j, ldc, accumulate);
  for (; j < n; ++j) dots<rows, 1>(k, a, lda, b + j * ldb, ldb, c + j, ldc, accumulate);
}

}  // namespace

void dot_product(Size m, Size n, Size k, const float* a, Size lda, const float* b, Size ldb, float* c, Size ldc, bool accumulate) {
  if (m == 1) product_of_rows<1>(n, k, a, lda, b, ldb, c, ldc, accumulate);
  if (m == 2) product_of_rows<2>(n, k, a, lda, b, ldb, c, ldc, accumulate);
}

}  // namespace smoe::cpu
