#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <tuple>
#include <utility>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/kernels/cpu_test_support.h"
#include "tests/support/deviation.h"
#include "tests/support/rounding.h"

namespace smoe {
namespace {

using test::Floats;
using test::Ints;

Shape shape_of_a(Gemm kind, std::int64_t m, std::int64_t k) { return kind == Gemm::tn ? Shape{k, m} : Shape{m, k}; }
Shape shape_of_b(Gemm kind, std::int64_t n, std::int64_t k) { return kind == Gemm::nt ? Shape{n, k} : Shape{k, n}; }

// The largest error against plain loops in double, as a share of what rounding k products and sums may cause.
double worst_error(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, const float* b,
                   const float* before, const float* c) {
  test::Worst worst;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = before ? before[i * n + j] : 0.0, magnitude = std::abs(sum);
      for (std::int64_t p = 0; p < k; ++p) {
        const double product = static_cast<double>(kind == Gemm::tn ? a[p * m + i] : a[i * k + p]) *
                               static_cast<double>(kind == Gemm::nt ? b[j * k + p] : b[p * n + j]);
        sum += product;
        magnitude += std::abs(product);
      }
      worst.add(test::in_units(test::difference(c[i * n + j], sum), test::product_rounding(DType::f32, k, magnitude)));
    }
  return worst.value;
}

struct GemmCase {
  Gemm kind;
  std::int64_t m, n, k;
};

class CpuGemm : public ::testing::TestWithParam<GemmCase> {};

TEST_P(CpuGemm, EqualsPlainLoops) {
  const auto [kind, m, n, k] = GetParam();
  for (int threads : {1, 2, 3})
    for (Write write : {Write::assign, Write::add}) {
      CpuBackend cpu(threads);
      auto a = Floats::random(shape_of_a(kind, m, k), 1), b = Floats::random(shape_of_b(kind, n, k), 2);
      auto c = write == Write::add ? Floats::random({m, n}, 3) : Floats({m, n}, std::nanf(""));
      auto before = c;
      cpu.gemm(kind, a, b, c, write);
      EXPECT_LT(worst_error(kind, m, n, k, &a[0], &b[0], write == Write::add ? &before[0] : nullptr, &c[0]), 1);
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CpuGemm,
                         ::testing::Values(GemmCase{Gemm::nt, 1, 1, 1}, GemmCase{Gemm::nt, 7, 5, 3},
                                           GemmCase{Gemm::nn, 33, 17, 65}, GemmCase{Gemm::tn, 5, 130, 300},
                                           GemmCase{Gemm::nt, 300, 8, 64}, GemmCase{Gemm::nn, 600, 70, 90},
                                           GemmCase{Gemm::tn, 515, 129, 65}, GemmCase{Gemm::nt, 4, 900, 64},
                                           GemmCase{Gemm::nn, 0, 4, 4}, GemmCase{Gemm::nt, 3, 4, 0},
                                           GemmCase{Gemm::tn, 70, 70, 0}));

TEST(CpuGroupedGemm, EqualsOneProductAnExpert) {
  const std::vector<std::int32_t> counts = {0, 37, 1, 0, 411, 64, 0};
  const auto E = static_cast<std::int64_t>(counts.size());
  std::vector<std::int32_t> sums(counts.size() + 1);
  for (std::size_t e = 0; e < counts.size(); ++e) sums[e + 1] = sums[e] + counts[e];
  const std::int64_t R = sums.back(), D = 40, F = 52;
  Ints offsets({E + 1}, sums);
  const ExpertRows rows{offsets, sums};
  for (Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn})
    for (Write write : {Write::assign, Write::add}) {
      CpuBackend cpu(2);
      auto a = Floats::random({R, D}, 1);
      auto b = Floats::random(kind == Gemm::tn ? Shape{R, F} : kind == Gemm::nt ? Shape{E, F, D} : Shape{E, D, F}, 2);
      auto c = Floats::random(kind == Gemm::tn ? Shape{E, D, F} : Shape{R, F}, 3);
      auto before = c;
      cpu.grouped_gemm(kind, a, b, c, rows, write);
      for (std::int64_t e = 0; e < E; ++e) {
        const std::int64_t first = sums[static_cast<std::size_t>(e)], count = counts[static_cast<std::size_t>(e)];
        const bool tn = kind == Gemm::tn;
        const std::int64_t at_c = tn ? e * D * F : first * F;
        EXPECT_LT(
            worst_error(kind, tn ? D : count, F, tn ? count : D, &a[first * D], tn ? &b[first * F] : &b[e * D * F],
                        write == Write::add ? &before[at_c] : nullptr, &c[at_c]),
            1);
      }
    }
}

// Up to four threads tiles depend on the sizes alone: their edges must not show in the numbers.
TEST(CpuGroupedGemm, SameBitsOnAnyNumberOfThreads) {
  const std::vector<std::int32_t> host = {0, 150, 600, 700, 1100};
  Ints offsets({5}, host);
  for (const auto& [n, k] : {std::pair{160, 96}, {512, 200}, {770, 64}, {1000, 520}})
    for (Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn}) {
      auto a = Floats::random({1100, k}, 1);
      auto b = Floats::random(kind == Gemm::tn   ? Shape{1100, n}
                              : kind == Gemm::nt ? Shape{4, n, k}
                                                 : Shape{4, k, n},
                              2);
      std::vector<float> first;
      for (int threads : {1, 2, 3, 4}) {
        CpuBackend cpu(threads);
        Floats c(kind == Gemm::tn ? Shape{4, k, n} : Shape{1100, n});
        cpu.grouped_gemm(kind, a, b, c, {offsets, host}, Write::assign);
        if (first.empty()) first = c.values();
        EXPECT_EQ(first, c.values()) << threads << " threads, kind " << static_cast<int>(kind) << ", n " << n << ", k "
                                     << k;
      }
    }
}

// Which thread computes a tile, and when, must not show.
TEST(CpuGemm, SameBitsEveryTime) {
  for (const auto& [m, n, k] : {std::tuple{1024, 768, 256}, {256, 4100, 200}, {2048, 8, 300}, {130, 520, 700}})
    for (Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn})
      for (int threads : {2, 3, 8}) {
        auto a = Floats::random(shape_of_a(kind, m, k), 1), b = Floats::random(shape_of_b(kind, n, k), 2);
        CpuBackend cpu(threads);
        Floats c({m, n}), again({m, n});
        cpu.gemm(kind, a, b, c, Write::assign);
        cpu.gemm(kind, a, b, again, Write::assign);
        EXPECT_EQ(c.values(), again.values())
            << threads << " threads, kind " << static_cast<int>(kind) << ", m " << m << ", n " << n << ", k " << k;
      }
}

TEST(CpuGemmBadInput, NamesTheWrongOperand) {
  CpuBackend cpu(1);
  Floats a({3, 4}), b({5, 6}), c({3, 5});
  try {
    cpu.gemm(Gemm::nt, a, b, c, Write::assign);
    FAIL();
  } catch (const std::logic_error& e) {
    EXPECT_STREQ(e.what(), "gemm: b is [5, 6] f32, expected [5, 4] f32");
  }
}

// The variable holds what the user asked for, or else what the backend chose before OpenBLAS read it.
TEST(CpuBlas, RunsTheKernelThatWasAskedFor) {
  const char* chosen = std::getenv("OPENBLAS_CORETYPE");
  if (!chosen || !*chosen) {
    EXPECT_EQ(cpu::blas_kernel_for(cpu::cpu_features()), nullptr);
    return;
  }
  EXPECT_STRCASEEQ(cpu::blas_kernel_name().c_str(), chosen);
}

struct KernelChoice {
  const char* cpu;
  cpu::CpuFeatures features;
  const char* kernel;
};

// CPUs that are not here, by what they report. No maker and no model takes part in the choice.
TEST(CpuBlas, ChoosesByFeaturesForCpusThatAreNotHere) {
  const KernelChoice choices[] = {
      {"no AVX", {}, nullptr},
      {"AVX without FMA (2011)", {.avx = true}, nullptr},
      {"AVX2 only (Haswell, Zen 1 to 3)", {.avx = true, .avx2_fma = true}, "Haswell"},
      {"AVX-512 of an unknown model", {.avx = true, .avx2_fma = true, .avx512 = true}, "SkylakeX"},
      {"Zen 4", {.avx = true, .avx2_fma = true, .avx512 = true, .avx512_bf16 = true}, "Cooperlake"},
      {"Emerald Rapids without AMX",
       {.avx = true, .avx2_fma = true, .avx512 = true, .avx512_bf16 = true},
       "Cooperlake"},
      {"Sapphire Rapids",
       {.avx = true, .avx2_fma = true, .avx512 = true, .avx512_bf16 = true, .amx_bf16 = true},
       "Cooperlake"},
  };
  for (const auto& c : choices) EXPECT_STREQ(cpu::blas_kernel_for(c.features), c.kernel) << c.cpu;
}

}  // namespace
}  // namespace smoe
