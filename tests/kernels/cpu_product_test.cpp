// The kernels of our own for products of few rows, against plain loops in double.
#include "kernels/cpu/product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/vectors.h"
#include "tests/support/deviation.h"
#include "tests/support/rounding.h"

namespace smoe::cpu {
namespace {

using Size = std::int64_t;

struct Problem {
  Gemm kind;
  Size m, n, k;
};

// Operands inside larger matrices, as slices of them are: what lies around them must be neither read nor written.
struct Operands {
  Operands(const Problem& p, bool accumulate)
      : problem(p), lda((p.kind == Gemm::tn ? p.m : p.k) + 3), ldb((p.kind == Gemm::nt ? p.k : p.n) + 5), ldc(p.n + 2) {
    std::uint32_t state = 1;
    const auto draw = [&] {
      return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1.0f;
    };
    const float outside = std::numeric_limits<float>::quiet_NaN();
    const auto fill = [&](std::vector<float>& v, Size rows, Size columns, Size ld) {
      v.assign(static_cast<std::size_t>(std::max<Size>(1, rows * ld)), outside);
      for (Size i = 0; i < rows; ++i)
        for (Size j = 0; j < columns; ++j) v[static_cast<std::size_t>(i * ld + j)] = draw();
    };
    fill(a, p.kind == Gemm::tn ? p.k : p.m, p.kind == Gemm::tn ? p.m : p.k, lda);
    fill(b, p.kind == Gemm::nt ? p.n : p.k, p.kind == Gemm::nt ? p.k : p.n, ldb);
    fill(c, p.m, accumulate ? p.n : 0, ldc);
    before = c;
  }

  // The largest error, as a share of what rounding k products and sums may cause; infinite where a number outside of c
  // changed or NaN came in.
  double worst() const {
    test::Worst worst;
    for (Size i = 0; i < problem.m; ++i)
      for (Size j = 0; j < ldc; ++j) {
        const auto at = static_cast<std::size_t>(i * ldc + j);
        if (j >= problem.n) {
          if (!std::isnan(c[at])) return std::numeric_limits<double>::infinity();
          continue;
        }
        double sum = std::isnan(before[at]) ? 0.0 : before[at], magnitude = std::abs(sum);
        for (Size p = 0; p < problem.k; ++p) {
          const double product =
              static_cast<double>(a[static_cast<std::size_t>(problem.kind == Gemm::tn ? p * lda + i : i * lda + p)]) *
              static_cast<double>(b[static_cast<std::size_t>(problem.kind == Gemm::nt ? j * ldb + p : p * ldb + j)]);
          sum += product;
          magnitude += std::abs(product);
        }
        worst.add(
            test::in_units(test::difference(c[at], sum), test::product_rounding(DType::f32, problem.k, magnitude)));
      }
    return worst.value;
  }

  Problem problem;
  Size lda, ldb, ldc;
  std::vector<float> a, b, c, before;
};

double error_of(ProductKernel kernel, const Problem& p, bool accumulate) {
  Operands x(p, accumulate);
  product(kernel, p.kind, p.m, p.n, p.k, x.a.data(), x.lda, x.b.data(), x.ldb, x.c.data(), x.ldc, accumulate);
  return x.worst();
}

const Size inner[] = {0, 1, 7, 8, 9, 64, 383, 384, 385, 800};

TEST(CpuProduct, FewRowsEqualPlainLoops) {
  for (const Gemm kind : {Gemm::nt, Gemm::nn})
    for (const Size m : {0, 1, 2, 5, 6, 7, 64, 127, 128})
      for (const Size n : {1, 8, 15, 16, 17, 40})
        for (const Size k : inner)
          for (const bool accumulate : {false, true})
            EXPECT_LT(error_of(ProductKernel::few_rows, {kind, m, n, k}, accumulate), 1)
                << (kind == Gemm::nt ? "nt " : "nn ") << m << " " << n << " " << k << " " << accumulate;
}

TEST(CpuProduct, DotsEqualPlainLoops) {
  for (const Size m : {0, 1, 2})
    for (const Size n : {1, 3, 4, 5, 40})
      for (const Size k : inner)
        for (const bool accumulate : {false, true})
          EXPECT_LT(error_of(ProductKernel::dots, {Gemm::nt, m, n, k}, accumulate), 1)
              << m << " " << n << " " << k << " " << accumulate;
}

// A tile of a product computes the numbers of the whole: the number of threads, which cuts it, changes none.
TEST(CpuProduct, ATileHasTheBitsOfTheWhole) {
  for (const Gemm kind : {Gemm::nt, Gemm::nn}) {
    const Size m = 100, n = 70, k = 500;
    Operands whole({kind, m, n, k}, false), tiles = whole;
    const auto run = [&](Operands& x, Size i, Size rows, Size j, Size columns) {
      few_rows_product(kind, rows, columns, k, x.a.data() + i * x.lda, x.lda,
                       x.b.data() + (kind == Gemm::nt ? j * x.ldb : j), x.ldb, x.c.data() + i * x.ldc + j, x.ldc,
                       false);
    };
    run(whole, 0, m, 0, n);
    for (Size i = 0; i < m; i += 32)
      for (Size j = 0; j < n; j += 48) run(tiles, i, std::min<Size>(32, m - i), j, std::min<Size>(48, n - j));
    for (Size i = 0; i < m; ++i)
      for (Size j = 0; j < n; ++j) {
        const auto at = static_cast<std::size_t>(i * whole.ldc + j);
        ASSERT_EQ(whole.c[at], tiles.c[at]) << i << " " << j;
      }
  }
}

TEST(CpuProduct, KernelsAreChosenByRowsAndFeatures) {
  const CpuFeatures avx2{.avx = true, .avx2_fma = true}, avx512{.avx = true, .avx2_fma = true, .avx512 = true};
  using enum ProductKernel;
  EXPECT_EQ(product_kernel_for(Gemm::nt, 1, 3584, 512, {}), dots);
  EXPECT_EQ(product_kernel_for(Gemm::nt, 2, 3584, 512, avx512), dots);
  if (!built_for_avx2) return;
  EXPECT_EQ(product_kernel_for(Gemm::nt, 3, 3584, 512, avx2), few_rows);
  EXPECT_EQ(product_kernel_for(Gemm::nt, 128, 3584, 512, avx2), few_rows);
  EXPECT_EQ(product_kernel_for(Gemm::nt, 129, 3584, 512, avx2), library);
  EXPECT_EQ(product_kernel_for(Gemm::nn, 64, 128, 64, avx2), few_rows) << "attention's: B is in a cache";
  EXPECT_EQ(product_kernel_for(Gemm::nn, 64, 512, 3584, avx2), library) << "an expert's weights: B is in memory";
  EXPECT_EQ(product_kernel_for(Gemm::tn, 64, 128, 64, avx2), library);
  EXPECT_EQ(product_kernel_for(Gemm::nt, 64, 128, 64, avx512), library);
  EXPECT_EQ(product_kernel_for(Gemm::nt, 64, 128, 64, {}), library);
}

}  // namespace
}  // namespace smoe::cpu
