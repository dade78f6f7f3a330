// The op list on this machine's GPU, in both types: against the reference, and against itself, since a result that is another
// the next time is a race, which no emulation on a CPU can show.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/gpu/figure.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

constexpr int times_again = 4;

class OpsOnTheGpu : public testing::TestWithParam<std::tuple<DType, OpCase>> {
 protected:
  static void SetUpTestSuite() { backend_ = make_cuda_backend(); }
  static void TearDownTestSuite() {
    for (const auto& [type, worst] : nearest_)
      test::figure(type + " nearest to its tolerance", "{:.0f}% of it at {}", 100 * worst.value, worst.name);
    backend_.reset();
  }
  static void note(DType type, const std::string& of, const Comparison& c) {
    if (const double share = test::deviation(c.found, c.truth) / c.tolerance; c.tolerance > 0 && share <= 1)
      nearest_[name_of(type)].add(share, of + ", " + c.output);
  }

  static inline std::unique_ptr<Backend> backend_;
  static inline std::map<std::string, test::Worst> nearest_;
};

TEST_P(OpsOnTheGpu, AgreeWithTheReferenceAndWithThemselves) {
  const auto& [type, op_case] = GetParam();
  const std::vector<Comparison> comparisons = compare_with_reference(op_case, *backend_, type);
  ASSERT_FALSE(comparisons.empty());
  for (const Comparison& c : comparisons) {
    EXPECT_EQ(disagreement(c.found, c.truth, c.tolerance), "") << c.output;
    note(type, op_case.name, c);
  }
  for (int time = 0; time < times_again; ++time) {
    const std::vector<Comparison> again = compare_with_reference(op_case, *backend_, type, Truth::left_out);
    ASSERT_EQ(again.size(), comparisons.size());
    for (std::size_t i = 0; i < again.size(); ++i)
      EXPECT_EQ(disagreement(again[i].found, comparisons[i].found, 0.0), "")
          << again[i].output << ": other numbers the next time";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ops, OpsOnTheGpu, testing::Combine(testing::Values(DType::f32, DType::bf16), testing::ValuesIn(compared_cases())),
    [](const auto& info) { return name_of(std::get<0>(info.param)) + ("_" + std::get<1>(info.param).name); });

}  // namespace
}  // namespace smoe::checks
