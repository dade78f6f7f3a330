// Every op of every backend against the reference, over the case lists; and what threads may and may not change.
#include "tests/kernels/backend_vs_reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace smoe::checks {

std::vector<BackendFactory> backend_factories() {
  return {{"cpu", [] { return make_cpu_backend(2); }}};
}

std::vector<Check> all_checks() {
  std::vector<Check> checks;
  for (const auto& family : {dense_checks(), attention_checks(), moe_checks()})
    checks.insert(checks.end(), family.begin(), family.end());
  return checks;
}

// ---- Workspace ----

namespace {
constexpr std::size_t guard_bytes = 64;  // before and behind every tensor; keeps the alignment that backends promise
constexpr std::int32_t guard_word = 0x5ca1ab1e;
constexpr std::int32_t no_index = -1'234'567;

Tensor words(void* data, std::size_t count, Device device) {
  return {data, DType::i32, {static_cast<std::int64_t>(count)}, device};
}
}  // namespace

Tensor Workspace::take(DType type, Shape shape, const void* content) {
  const std::size_t payload = static_cast<std::size_t>(shape.elements()) * bytes_of(type);
  const std::size_t padded = (payload + 3) / 4 * 4;
  Block block{nullptr, guard_bytes + padded + guard_bytes, padded};
  block.data = static_cast<char*>(backend_.allocate(block.bytes));
  blocks_.push_back(block);
  const std::vector<std::int32_t> guards(block.bytes / 4, guard_word);
  backend_.copy_from_host(words(block.data, guards.size(), backend_.device()), guards.data());
  const Tensor tensor(block.data + guard_bytes, type, shape, backend_.device());
  if (payload > 0) backend_.copy_from_host(tensor, content);
  return tensor;
}

Workspace::~Workspace() {
  for (const Block& block : blocks_) {
    std::vector<std::int32_t> content(block.bytes / 4);
    backend_.copy_to_host(content.data(), words(block.data, content.size(), backend_.device()));
    const std::size_t guard = guard_bytes / 4;
    for (std::size_t i = 0; i < content.size(); ++i)
      if ((i < guard || i >= content.size() - guard) && content[i] != guard_word) {
        ADD_FAILURE() << "memory beside a tensor of " << block.payload << " bytes was overwritten";
        break;
      }
    backend_.release(block.data, block.bytes);
  }
}

Tensor Workspace::f32(Shape shape, const Values& values) {
  EXPECT_EQ(shape.elements(), static_cast<Index>(values.size()));
  return take(DType::f32, shape, reference::cast<float>(values).data());
}

Tensor Workspace::i32(Shape shape, const Ids& values) {
  EXPECT_EQ(shape.elements(), static_cast<Index>(values.size()));
  return take(DType::i32, shape, values.data());
}

Tensor Workspace::output(Shape shape) {
  return f32(shape, Values(shape.elements(), std::numeric_limits<double>::quiet_NaN()));
}

Tensor Workspace::output_i32(Shape shape) { return i32(shape, Ids(shape.elements(), no_index)); }

Values Workspace::read(const Tensor& tensor) {
  if (tensor.type() == DType::i32) return as_values(read_ids(tensor));
  std::vector<float> values(tensor.elements());
  if (!values.empty()) backend_.copy_to_host(values.data(), tensor);
  return reference::cast<double>(values);
}

Ids Workspace::read_ids(const Tensor& tensor) {
  Ids values(tensor.elements());
  if (!values.empty()) backend_.copy_to_host(values.data(), tensor);
  return values;
}

namespace {

// ---- against the reference ----

using BackendAndCheck = std::tuple<BackendFactory, Check>;
class BackendVsReference : public testing::TestWithParam<BackendAndCheck> {};

TEST_P(BackendVsReference, Agrees) {
  const auto& [factory, check] = GetParam();
  const std::unique_ptr<Backend> backend = factory.make();
  Report report;
  check.run(*backend, report);
  ASSERT_FALSE(report.comparisons().empty());
  for (const Comparison& c : report.comparisons())
    EXPECT_EQ(disagreement(c.found, c.truth, c.tolerance), "") << check.name << ": " << c.output;
}

INSTANTIATE_TEST_SUITE_P(Ops, BackendVsReference,
                         testing::Combine(testing::ValuesIn(backend_factories()), testing::ValuesIn(all_checks())),
                         [](const auto& info) { return std::get<0>(info.param).name + "_" + std::get<1>(info.param).name; });

// ---- threads of the CPU backend ----

Report run_with_threads(const Check& check, int threads) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(threads);
  Report report;
  check.run(*backend, report);
  return report;
}

class CpuThreads : public testing::TestWithParam<Check> {};

TEST_P(CpuThreads, SameCountSameBits) {
  for (const int threads : {1, 2}) {
    const Report first = run_with_threads(GetParam(), threads), second = run_with_threads(GetParam(), threads);
    for (std::size_t i = 0; i < first.comparisons().size(); ++i)
      EXPECT_EQ(disagreement(first.comparisons()[i].found, second.comparisons()[i].found, 0.0), "")
          << first.comparisons()[i].output << " with " << threads << " threads";
  }
}

TEST_P(CpuThreads, OtherCountWithinRounding) {
  const Report one = run_with_threads(GetParam(), 1), two = run_with_threads(GetParam(), 2);
  for (std::size_t i = 0; i < one.comparisons().size(); ++i) {
    const Comparison &a = one.comparisons()[i], &b = two.comparisons()[i];
    EXPECT_EQ(disagreement(a.found, b.found, a.tolerance), "") << a.output;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, CpuThreads, testing::ValuesIn(all_checks()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe::checks
