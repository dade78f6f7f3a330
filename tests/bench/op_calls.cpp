#include "tests/bench/op_calls.h"

namespace smoe::bench {

std::uint32_t Inputs::next() {
  state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<std::uint32_t>(state_ >> 33);  // 31 bits
}

Tensor Inputs::constant(Shape shape, float value) {
  const Tensor tensor = arena_.take(shape);
  backend_.fill(tensor, value);
  return tensor;
}

Tensor Inputs::output(Shape shape) { return constant(shape, 0); }

Tensor Inputs::scalar() {
  const Tensor tensor = arena_.take(DType::f64, {1});
  backend_.fill(tensor, 0.0f);
  return tensor;
}

Tensor Inputs::uniform(Shape shape, float scale) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (float& value : values) value = scale * (static_cast<float>(next()) * 0x1.0p-30f - 1);
  const Tensor tensor = arena_.take(shape);
  backend_.copy_from_host(tensor, values.data());
  return tensor;
}

Tensor Inputs::i32(Shape shape, const std::vector<std::int32_t>& values) {
  const Tensor tensor = arena_.take(DType::i32, shape);
  backend_.copy_from_host(tensor, values.data());
  return tensor;
}

Tensor Inputs::output_i32(Shape shape) {
  return i32(shape, std::vector<std::int32_t>(static_cast<std::size_t>(shape.elements())));
}

Tensor Inputs::ids(Shape shape, Index bound) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(shape.elements()));
  for (auto& value : values) value = static_cast<std::int32_t>(next() % static_cast<std::uint32_t>(bound));
  return i32(shape, values);
}

std::vector<OpCall> all_calls() {
  std::vector<OpCall> calls = dense_calls();
  for (auto& family : {attention_calls(), moe_calls()}) calls.insert(calls.end(), family.begin(), family.end());
  return calls;
}

}  // namespace smoe::bench
