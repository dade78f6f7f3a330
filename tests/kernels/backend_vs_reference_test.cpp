// Every op of every backend against the reference, over the op list; and what threads may and may not change.
#include "tests/kernels/backend_vs_reference.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "tests/support/rounding.h"

namespace smoe::checks {

std::vector<BackendFactory> backend_factories() {
  return {{"cpu", [] { return make_cpu_backend(2); }}};
}

std::vector<OpCase> compared_cases() {
  std::vector<OpCase> cases = all_calls();
  std::erase_if(cases, [](const OpCase& c) { return c.bench; });
  return cases;
}

std::vector<Comparison> compare_with_reference(const OpCase& c, Backend& backend, DType type) {
  std::vector<Comparison> comparisons;
  for (const OpCall& op : c.calls) {
    Inputs inputs(backend, c.name + op.op, Inputs::For::comparison, type);
    const Prepared prepared = op.prepare(inputs);
    prepared.call();
    for (const Output& output : prepared.outputs) {
      const auto part = [&](Values values) { return output.part ? output.part(values) : values; };
      const bool is_half = output.tensor.type() == DType::bf16;
      Values truth = part(output.truth());
      if (is_half) truth = reference::cast<double>(rounded_to_bf16(reference::cast<float>(truth)));
      comparisons.push_back({op.op + (op.variant.empty() ? "" : " (" + op.variant + ")") + ": " + output.name,
                             part(inputs.workspace().read(output.tensor)), std::move(truth),
                             is_half && output.tolerance > 0 ? test::epsilon_of(DType::bf16) : output.tolerance});
    }
    EXPECT_EQ(inputs.workspace().overwritten(), "") << op.op << " " << op.variant;
  }
  return comparisons;
}

namespace {

// ---- against the reference ----

using BackendAndCase = std::tuple<BackendFactory, DType, OpCase>;
class BackendVsReference : public testing::TestWithParam<BackendAndCase> {};

TEST_P(BackendVsReference, Agrees) {
  const auto& [factory, type, op_case] = GetParam();
  const std::unique_ptr<Backend> backend = factory.make();
  const std::vector<Comparison> comparisons = compare_with_reference(op_case, *backend, type);
  ASSERT_FALSE(comparisons.empty());
  for (const Comparison& c : comparisons) EXPECT_EQ(disagreement(c.found, c.truth, c.tolerance), "") << c.output;
}

INSTANTIATE_TEST_SUITE_P(Ops, BackendVsReference,
                         testing::Combine(testing::ValuesIn(backend_factories()),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::ValuesIn(compared_cases())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" + name_of(std::get<1>(info.param)) + "_" +
                                  std::get<2>(info.param).name;
                         });

// What the bench times is compared, and the other way round.
TEST(OpList, TimesWhatItComparesAndComparesWhatItTimes) {
  std::set<std::string> timed, compared;
  for (const OpCase& c : all_calls())
    for (const OpCall& call : c.calls) (c.bench ? timed : compared).insert(call.op);
  EXPECT_EQ(timed, compared);
  EXPECT_GT(timed.size(), 30u);
}

// ---- threads of the CPU backend ----

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
