#include "kernels/cpu/core_rate.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace smoe::cpu {
namespace {

// Between what no CPU is slow enough to miss and what none can pass: a loop that the compiler dropped or merged would be
// far beyond, one that waits for each sum far below.
TEST(CoreRate, IsThatOfRegisters) {
  const CoreRate rate = measure_core_rate(1);
  EXPECT_GT(rate.flops_per_second, 1e9);
  EXPECT_LT(rate.flops_per_second, 1e12);
  EXPECT_STRNE(rate.form, "");
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
  EXPECT_EQ(to_string(CpuFeatures{.avx = true, .avx2_fma = true, .avx512 = true, .avx512_bf16 = true}), "AVX-512, BF16");
  EXPECT_EQ(to_string(CpuFeatures{}), "no AVX");
}

}  // namespace
}  // namespace smoe::cpu
