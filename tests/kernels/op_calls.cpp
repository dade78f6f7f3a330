#include "tests/kernels/op_calls.h"

#include <cstdlib>

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

}  // namespace

Inputs::Inputs(Backend& backend, const std::string& name, For what, DType type)
    : backend_(backend), workspace_(backend), random_(seed_of(name)), what_(what), type_(type) {}

Values Inputs::normals(Index count, double scale, double mean) {
  if (for_bench()) return {};
  const auto drawn = reference::cast<float>(random_.normals(count, scale, mean));
  return reference::cast<double>(type_ == DType::bf16 ? rounded_to_bf16(drawn) : drawn);
}

Tensor Inputs::typed(Shape shape, const Values& values) {
  return type_ == DType::f32 ? f32(shape, values) : workspace_.bf16(shape, values);
}

Tensor Inputs::typed_output(Shape shape) { return type_ == DType::f32 ? output(shape) : workspace_.output_bf16(shape); }

Tensor Inputs::f32(Shape shape, const Values& values) {
  if (!for_bench() || !values.empty()) return workspace_.f32(shape, values);
  std::vector<float> uniform(static_cast<std::size_t>(shape.elements()));  // in [-1, 1)
  for (float& value : uniform) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    value = static_cast<float>(static_cast<std::uint32_t>(state_ >> 33)) * 0x1.0p-30f - 1;
  }
  return workspace_.floats(shape, uniform);
}

Tensor Inputs::output(Shape shape) {
  return for_bench() ? workspace_.floats(shape, std::vector<float>(static_cast<std::size_t>(shape.elements())))
                     : workspace_.output(shape);
}

std::vector<OpCase> all_calls() {
  std::vector<OpCase> calls;
  for (const auto& family : {dense_calls(), cross_entropy_calls(), attention_calls(), moe_calls()})
    calls.insert(calls.end(), family.begin(), family.end());
  return calls;
}

}  // namespace smoe::checks
