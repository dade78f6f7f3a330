#include "kernels/cpu/core_rate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/cpu_test_support.h"

namespace smoe::cpu {
namespace {

// Held against a product, whose work is known: sums that waited for each other would be slower than it, sums that the
// compiler merged a dozen times as fast.
TEST(CoreRate, IsThatOfRegisters) {
  CpuBackend backend(1);
  constexpr std::int64_t n = 384;
  test::Floats a({n, n}, 1), b({n, n}, 1), c({n, n});
  double product = 0;
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    backend.gemm(Gemm::nt, a, b, c, Write::assign);
    product = std::max(
        product, 2.0 * n * n * n / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const CoreRate rate = measure_core_rate(1);
  EXPECT_GT(rate.flops_per_second, 0.8 * product);
  EXPECT_LT(rate.flops_per_second, 8 * product);
}

// More threads than cores are no more cores: the round is as long as the core's, not as each thread's own time on it.
TEST(CoreRate, OfThreadsThatShareACoreIsThatOfTheCore) {
  const ThreadRound alone[] = {{.begin = 5, .end = 6, .ran = 1}, {.begin = 5.01, .end = 6.01, .ran = 1}};
  EXPECT_DOUBLE_EQ(join_threads(alone).seconds, 6.01 - 5);
  EXPECT_TRUE(join_threads(alone).undisturbed);
  const ThreadRound in_turns[] = {{.begin = 6, .end = 7, .ran = 1}, {.begin = 5, .end = 6, .ran = 1}};
  EXPECT_DOUBLE_EQ(join_threads(in_turns).seconds, 2);
  EXPECT_FALSE(join_threads(in_turns).undisturbed);
  const ThreadRound siblings[] = {{.begin = 5, .end = 7, .ran = 2}, {.begin = 5, .end = 7, .ran = 2}};
  EXPECT_DOUBLE_EQ(join_threads(siblings).seconds, 2) << "two hardware threads, each at half the rate";
  EXPECT_TRUE(join_threads(siblings).undisturbed);
}

TEST(CoreRate, TakesOnlyFormsThatTheFeaturesAllow) {
  EXPECT_STREQ(measure_core_rate(1, {}).form, "128 bits");
  if (!cpu_features().avx2_fma) return;
  EXPECT_STREQ(measure_core_rate(1, {.avx = true, .avx2_fma = true}).form, "AVX2");
}

TEST(CoreRate, BadInputIsOurs) { EXPECT_THROW(measure_core_rate(0), std::logic_error); }

TEST(CpuFeatures, SayWhatTheCompilerFindsToo) {
  const CpuFeatures features = cpu_features();
#ifdef __AVX512BW__
  EXPECT_TRUE(features.avx512);
#endif
#ifdef __AVX2__
  EXPECT_TRUE(features.avx && features.avx2_fma);
#endif
  EXPECT_FALSE(cpu_name().empty());
  EXPECT_EQ(to_string(CpuFeatures{.avx = true, .avx2_fma = true, .avx512 = true, .avx512_bf16 = true}),
            "AVX-512, BF16");
  EXPECT_EQ(to_string(CpuFeatures{}), "no AVX");
}

}  // namespace
}  // namespace smoe::cpu
