// Every op of every backend against the reference, over the op list.
#include "tests/kernels/backend_vs_reference.h"

#include <gtest/gtest.h>

#include <tuple>

namespace smoe::checks {
namespace {

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

}  // namespace
}  // namespace smoe::checks
