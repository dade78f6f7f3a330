#include "tests/kernels/op_calls.h"

#include <cstdlib>
#include <initializer_list>

namespace smoe::checks {
namespace {

// SMOE_TEST_SEED=7: other numbers in every case.
std::uint64_t seed_of_the_environment() {
  static const char* const given = std::getenv("SMOE_TEST_SEED");
  static const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : 0;
  return seed;
}

std::uint64_t seed_of(const std::string& name) {
  std::uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 1099511628211ull;
  return hash + seed_of_the_environment();
}

std::vector<OpCase> joined(std::initializer_list<std::vector<OpCase>> families) {
  std::vector<OpCase> all;
  for (const auto& family : families) all.insert(all.end(), family.begin(), family.end());
  return all;
}

}  // namespace

Inputs::Inputs(Backend& backend, const std::string& name, DType type)
    : backend_(backend), workspace_(backend), random_(seed_of(name)), type_(type), numbers_(nullptr) {}

Inputs::Inputs(Backend& backend, const std::string& name, DType type, RepeatedNumbers& numbers)
    : backend_(backend), workspace_(backend), random_(seed_of(name)), type_(type), numbers_(&numbers) {}

Values Inputs::normals(Index count, double scale, double mean) {
  if (for_bench()) return {};
  const auto drawn = reference::cast<float>(random_.normals(count, scale, mean));
  return reference::cast<double>(type_ == DType::bf16 ? rounded_to_bf16(drawn) : drawn);
}

Tensor Inputs::filled(DType type, Shape shape) {
  const Tensor tensor = workspace_.room(type, shape);
  numbers_->fill(tensor);
  return tensor;
}

Tensor Inputs::f32(Shape shape, const Values& values) {
  return for_bench() && values.empty() ? filled(DType::f32, shape) : workspace_.f32(shape, values);
}

Tensor Inputs::typed(Shape shape, const Values& values) {
  if (type_ == DType::f32) return f32(shape, values);
  return for_bench() && values.empty() ? filled(type_, shape) : workspace_.bf16(shape, values);
}

Tensor Inputs::cleared(DType type, Shape shape) {
  const Tensor tensor = workspace_.room(type, shape);
  backend_.fill(tensor, 0);
  return tensor;
}

Tensor Inputs::zeros(Shape shape) {
  return for_bench() ? cleared(DType::f32, shape)
                     : workspace_.f32(shape, Values(static_cast<std::size_t>(shape.elements())));
}

Tensor Inputs::output(Shape shape) { return for_bench() ? cleared(DType::f32, shape) : workspace_.output(shape); }

Tensor Inputs::typed_output(Shape shape) {
  if (type_ == DType::f32) return output(shape);
  return for_bench() ? cleared(type_, shape) : workspace_.output_bf16(shape);
}

Tensor Inputs::output_i32(Shape shape) {
  return for_bench() ? cleared(DType::i32, shape) : workspace_.output_i32(shape);
}

std::vector<OpCase> compared_cases() {
  return joined({dense_calls(), cross_entropy_calls(), attention_calls(), moe_calls(), low_rank_calls()});
}

std::vector<OpCase> bench_calls(const BenchShape& shape, DType type) {
  return joined({dense_calls(shape, type), cross_entropy_calls(shape, type), attention_calls(shape, type),
                 moe_calls(shape, type), low_rank_calls(shape, type)});
}

}  // namespace smoe::checks
