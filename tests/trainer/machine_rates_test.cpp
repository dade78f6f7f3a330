#include "trainer/machine_rates.h"

#include <gtest/gtest.h>

#include "parallel/mesh.h"

namespace smoe {
namespace {

MachineRates rates(double peak, double product) {
  return {{.name = "A CPU (AVX2)",
           .threads = 2,
           .product_kernel = "OpenBLAS Haswell",
           .peak_flops = peak,
           .peak_form = "AVX2"},
          peak,
          product};
}

TEST(MachineRates, AreMeasuredAndHeldAgainstTheArithmeticUnits) {
  const Mesh mesh = Mesh::single();
  const auto backend = make_cpu_backend(1);
  const MachineRates found = measure_machine_rates(*backend, mesh.group(Axis::world), 1);
  EXPECT_GT(found.peak_flops, 0);
  EXPECT_EQ(found.peak_flops, found.device.peak_flops);
  EXPECT_GT(found.product_flops, 0);
  EXPECT_EQ(found.device.threads, 1);
}

// Sixty-four thousand ranks on this node: each of their threads has a small part of a core.
TEST(MachineRates, CountNoCoreTwice) {
  const Mesh mesh = Mesh::single();
  const auto backend = make_cpu_backend(1);
  const MachineRates found = measure_machine_rates(*backend, mesh.group(Axis::world), 65536);
  EXPECT_LT(found.peak_flops, 0.1 * found.device.peak_flops);
}

TEST(MachineRates, TheLogSaysCpuKernelAndRates) {
  const auto lines = describe(rates(200e9, 184e9));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(
      lines[0],
      "A CPU (AVX2), 2 thread(s) a rank; cores 200 GF/s (AVX2 multiply-adds), products of 2048^3 184 GF/s (92%) by OpenBLAS Haswell");
}

TEST(MachineRates, AGpuIsHeldAgainstItsBestProduct) {
  const MachineRates of_gpu{{.name = "A GPU (sm_90, 132 multiprocessors, 79 GiB)",
                             .threads = 1,
                             .product_kernel = "cuBLASLt",
                             .peak_flops = 712e12,
                             .peak_form = "bf16 product 8192^3",
                             .kind = Device::cuda},
                            1424e12,
                            1424e12,
                            {.total = 80ull << 30, .free = 7ull << 29, .peak = 0}};
  const auto lines = describe(of_gpu);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(
      lines[0],
      "A GPU (sm_90, 132 multiprocessors, 79 GiB); 1424 TF/s (bf16 product 8192^3) by cuBLASLt; 3.5 of 80.0 GiB are "
      "free beside the model");
  EXPECT_EQ(describe_rate(Device::cuda, 412e3, 0.579), "412.0 TF/s (58% of the bf16 product)");
  EXPECT_EQ(describe_rate(Device::cpu, 84.1, 0.61), "84.1 GF/s (61% of the cores)");
}

TEST(MachineRates, AProductBelowSixtyPercentIsAWarning) {
  EXPECT_EQ(describe(rates(200e9, 120e9)).size(), 1u);
  const auto lines = describe(rates(310e9, 44e9));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].find("warning: matrix products run at 14% of what the cores can do, expected at least 60%"), 0u)
      << lines[1];
}

}  // namespace
}  // namespace smoe
