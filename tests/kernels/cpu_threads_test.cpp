// What threads of the CPU may and may not change.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <numeric>
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

std::set<std::string> ops_of(const std::vector<OpCase>& cases) {
  std::set<std::string> ops;
  for (const OpCase& c : cases)
    for (const OpCall& call : c.calls) ops.insert(call.op);
  return ops;
}

// What the bench times is compared, and the other way round, whichever model's sizes it times.
TEST(OpList, TimesWhatItComparesAndComparesWhatItTimes) {
  const std::set<std::string> compared = ops_of(compared_cases());
  EXPECT_GT(compared.size(), 30u);
  for (const BenchShape& shape : bench_shapes())
    for (const DType type : {DType::f32, DType::bf16})
      EXPECT_EQ(ops_of(bench_calls(shape, type)), compared) << shape.name << " " << name_of(type);
}

// What moves the same numbers in half of the bytes has half of the bytes to move, and no op has more.
TEST(OpList, CountsTheBytesOfTheTypeThatItTimes) {
  const BenchShape shape = bench_shape("8x7b");
  const std::vector<OpCase> wide = bench_calls(shape, DType::f32), narrow = bench_calls(shape, DType::bf16);
  ASSERT_EQ(wide.size(), narrow.size());
  std::set<std::string> halved;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    ASSERT_EQ(wide[i].calls.size(), narrow[i].calls.size()) << wide[i];
    for (std::size_t k = 0; k < wide[i].calls.size(); ++k) {
      const OpCall &a = wide[i].calls[k], &b = narrow[i].calls[k];
      EXPECT_EQ(a.shape, b.shape);
      EXPECT_EQ(a.work.flops, b.work.flops) << a.op;
      const double value = a.op == "adamw" ? b.work.bytes / 17 : 0;  // 2 bytes of 34, which are written besides
      EXPECT_LE(b.work.bytes - value, a.work.bytes) << a.op;
      if (2 * b.work.bytes == a.work.bytes) halved.insert(a.op);
    }
  }
  for (const char* op :
       {"copy", "fill", "add", "sum_rows", "rms_norm_forward", "rms_norm_backward", "gemm", "grouped_gemm",
        "rope_forward", "attention_forward", "attention_backward", "jitter", "add_noise", "dropout", "spread_blocks",
        "permute", "unpermute", "swiglu_forward", "swiglu_backward"})
    EXPECT_TRUE(halved.contains(op)) << op;
  for (const char* op : {"copy_to_host", "router_forward", "cross_entropy_statistics", "adamw", "embedding_backward"})
    EXPECT_FALSE(halved.contains(op)) << op;
}

TEST(BenchShapes, SkewedRowsAreAsManyAsEvenOnes) {
  for (const BenchShape& shape : bench_shapes()) {
    const auto sum = [](const std::vector<std::int64_t>& rows) {
      return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
    };
    EXPECT_EQ(sum(shape.even_rows()), shape.rows());
    EXPECT_EQ(sum(shape.skewed_rows()), shape.rows());
    EXPECT_LE(shape.skewed_rows().front(), shape.tokens());  // a token chooses an expert once
  }
}

TEST(RepeatedNumbers, RepeatABlockInBothTypesAndGoOnWhereTheyEnded) {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(1);
  RepeatedNumbers numbers(*cpu, {1, 2, 3});
  Workspace workspace(*cpu);
  const Tensor first = workspace.room(DType::f32, {2, 2}), second = workspace.room(DType::bf16, {7});
  numbers.fill(first);
  numbers.fill(second);
  EXPECT_EQ(workspace.read(first), (Values{1, 2, 3, 1}));
  EXPECT_EQ(workspace.read(second), (Values{2, 3, 1, 2, 3, 1, 2}));
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
