// What threads of the CPU may and may not change.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {

std::vector<BackendFactory> backend_factories() {
  return {{"cpu", [] { return make_cpu_backend(2); }}};
}

namespace {

// What the bench times is compared, and the other way round.
TEST(OpList, TimesWhatItComparesAndComparesWhatItTimes) {
  std::set<std::string> timed, compared;
  for (const OpCase& c : all_calls())
    for (const OpCall& call : c.calls) (c.bench ? timed : compared).insert(call.op);
  EXPECT_EQ(timed, compared);
  EXPECT_GT(timed.size(), 30u);
}

using TypeAndCase = std::tuple<DType, OpCase>;
class CpuThreads : public testing::TestWithParam<TypeAndCase> {
 protected:
  static std::vector<Comparison> run(int threads) {
    const auto& [type, op_case] = GetParam();
    const std::unique_ptr<Backend> backend = make_cpu_backend(threads);
    return compare_with_reference(op_case, *backend, type);
  }
};

TEST_P(CpuThreads, SameCountSameBits) {
  for (const int threads : {1, 2}) {
    const auto first = run(threads), second = run(threads);
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_EQ(disagreement(first[i].found, second[i].found, 0.0), "")
          << first[i].output << " with " << threads << " threads";
  }
}

TEST_P(CpuThreads, OtherCountWithinRounding) {
  const auto one = run(1), two = run(2);
  for (std::size_t i = 0; i < one.size(); ++i)
    EXPECT_EQ(disagreement(one[i].found, two[i].found, one[i].tolerance), "") << one[i].output;
}

INSTANTIATE_TEST_SUITE_P(
    Ops, CpuThreads, testing::Combine(testing::Values(DType::f32, DType::bf16), testing::ValuesIn(compared_cases())),
    [](const auto& info) { return name_of(std::get<0>(info.param)) + ("_" + std::get<1>(info.param).name); });

}  // namespace
}  // namespace smoe::checks
