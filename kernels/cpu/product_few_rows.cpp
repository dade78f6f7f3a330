// Products of few rows, in GotoBLAS's scheme (Goto & van de Geijn 2008) with less packing: a micro-tile of C, MR x NR,
// stays in registers while one column of A after the other is multiplied with one row of B. All of A is packed at once, since
// it is small; B a panel of NR columns at a time, just before its use, so that it is read from memory once and its copy
// never leaves the first-level cache.
#include <algorithm>
#include <stdexcept>

#include "kernels/cpu/product.h"
#include "kernels/cpu/vectors.h"

namespace smoe::cpu {
namespace {

using Size = std::int64_t;

constexpr int MR = 6, NR = 16;  // 12 sums, two vectors of B and one of A: the 16 registers of AVX2
constexpr Size depth = 384;     // a panel of so many steps and six rows of A fit a first-level cache of 32 KiB

// c [rows, NR] = or += a b over k steps; a is packed [k, MR], b [k, NR].
template <int rows>
void micro_tile(Size k, const float* __restrict a, const float* __restrict b, float* __restrict c, Size ldc,
                bool accumulate) {
  V8 sum[rows][2] = {};
  for (int i = 0; i < rows; ++i) __builtin_prefetch(c + i * ldc, 1);
#pragma GCC unroll 4
  for (Size p = 0; p < k; ++p) {
    const V8 b0 = load8(b), b1 = load8(b + 8);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      sum[i][0] += b0 * a[i];
      sum[i][1] += b1 * a[i];
    }
    a += MR;
    b += NR;
  }
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < 2; ++j) {
      float* to = c + i * ldc + 8 * j;
      store8(to, accumulate ? load8(to) + sum[i][j] : sum[i][j]);
    }
}

template <int rows = MR>
void micro_tile_of(int count, Size k, const float* a, const float* b, float* c, Size ldc, bool accumulate) {
  if constexpr (rows > 1)
    if (count < rows) return micro_tile_of<rows - 1>(count, k, a, b, c, ldc, accumulate);
  micro_tile<rows>(k, a, b, c, ldc, accumulate);
}

// The rows of A that a micro-tile takes, packed [k, MR]. A vector holds eight, two more than a step has: each store begins
// where the one before should have ended, and mends what that one spilt.
void pack_rows_of_a(Size k, int count, const float* a, Size lda, float* packed) {
  Size p = 0;
  if (count == MR)
    for (; p + 8 < k; p += 8) {
      V8 steps[8];
      transpose8(a + p, lda, MR, steps);
      for (int q = 0; q < 8; ++q) store8(packed + (p + q) * MR, steps[q]);
    }
  for (; p < k; ++p)
    for (int i = 0; i < count; ++i) packed[p * MR + i] = a[i * lda + p];
}

// panel [k, NR] from `columns` columns of B; those that are missing are zeros.
void pack_panel_nn(Size k, Size columns, const float* b, Size ldb, float* panel) {
  if (columns == NR) {
    for (Size p = 0; p < k; ++p) {
      store8(panel + p * NR, load8(b + p * ldb));
      store8(panel + p * NR + 8, load8(b + p * ldb + 8));
    }
    return;
  }
  for (Size p = 0; p < k; ++p)
    for (Size j = 0; j < NR; ++j) panel[p * NR + j] = j < columns ? b[p * ldb + j] : 0.0f;
}

// The same where column j of B is row j in memory.
void pack_panel_nt(Size k, Size columns, const float* b, Size ldb, float* panel) {
  Size j = 0;
  for (; j + 8 <= columns; j += 8) {
    Size p = 0;
    for (; p + 8 <= k; p += 8) {
      V8 steps[8];
      transpose8(b + j * ldb + p, ldb, 8, steps);
      for (int q = 0; q < 8; ++q) store8(panel + (p + q) * NR + j, steps[q]);
    }
    for (; p < k; ++p)
      for (Size i = j; i < j + 8; ++i) panel[p * NR + i] = b[i * ldb + p];
  }
  for (; j < NR; ++j)
    for (Size p = 0; p < k; ++p) panel[p * NR + j] = j < columns ? b[j * ldb + p] : 0.0f;
}

// Brings the share [from, to) / whole of the next panel nearer while this one is computed with: its rows or columns lie
// apart, so the hardware does not foresee them. b points to the panel's first element.
void prefetch_share(Gemm kind, Size k, Size columns, const float* b, Size ldb, Size from, Size to, Size whole) {
  if (kind == Gemm::nt) {
    for (Size j = columns * from / whole, end = columns * to / whole; j < end; ++j)
      for (Size p = 0; p < k; p += 16) __builtin_prefetch(b + j * ldb + p, 0, 2);
  } else {
    for (Size p = k * from / whole, end = k * to / whole; p < end; ++p) __builtin_prefetch(b + p * ldb, 0, 2);
  }
}

}  // namespace

void few_rows_product(Gemm kind, Size m, Size n, Size k, const float* a, Size lda, const float* b, Size ldb, float* c,
                      Size ldc, bool accumulate) {
  if (m > most_few_rows) throw std::logic_error("few_rows_product: too many rows");
  alignas(64) float panel[depth * NR], packed[depth * (most_few_rows + MR)], edge[MR * NR];
  const Size parts = std::max<Size>(1, (k + depth - 1) / depth), part = std::max<Size>(1, (k + parts - 1) / parts);
  for (Size p0 = 0; p0 == 0 || p0 < k; p0 += part) {
    const Size steps = std::min(part, k - p0);
    const bool add = accumulate || p0 > 0;
    for (Size i = 0; i < m; i += MR)
      pack_rows_of_a(steps, static_cast<int>(std::min<Size>(MR, m - i)), a + i * lda + p0, lda, packed + i * steps);
    const auto start_of_panel = [&](Size j) { return kind == Gemm::nt ? b + j * ldb + p0 : b + p0 * ldb + j; };
    for (Size j = 0; j < n; j += NR) {
      const Size columns = std::min<Size>(NR, n - j), ahead = std::min<Size>(NR, n - j - columns);
      if (kind == Gemm::nt)
        pack_panel_nt(steps, columns, start_of_panel(j), ldb, panel);
      else
        pack_panel_nn(steps, columns, start_of_panel(j), ldb, panel);
      for (Size i = 0; i < m; i += MR) {
        const int count = static_cast<int>(std::min<Size>(MR, m - i));
        if (ahead > 0) prefetch_share(kind, steps, ahead, start_of_panel(j + NR), ldb, i, i + count, m);
        float* to = c + i * ldc + j;
        if (columns == NR) {
          micro_tile_of(count, steps, packed + i * steps, panel, to, ldc, add);
          continue;
        }
        micro_tile_of(count, steps, packed + i * steps, panel, edge, NR, false);
        for (int r = 0; r < count; ++r)
          for (Size s = 0; s < columns; ++s) to[r * ldc + s] = (add ? to[r * ldc + s] : 0.0f) + edge[r * NR + s];
      }
    }
  }
}

}  // namespace smoe::cpu
