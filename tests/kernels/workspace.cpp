#include "tests/kernels/workspace.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>

// There only where some of the program has the address sanitizer: tests/cuda_on_host.
extern "C" {
void __asan_poison_memory_region(const volatile void* address, std::size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* address, std::size_t bytes) __attribute__((weak));
}

namespace smoe::checks {
namespace {
constexpr std::size_t guard_bytes =
    memory_alignment;  // before and behind every tensor; keeps the alignment of an Arena's
constexpr std::int32_t guard_word = 0x5ca1ab1e;
constexpr std::int32_t no_index = -1'234'567;

Tensor words(void* data, std::size_t count, Device device) {
  return {data, DType::i32, {static_cast<std::int64_t>(count)}, device};
}
}  // namespace

Tensor Workspace::room(DType type, Shape shape) {
  const std::size_t payload = static_cast<std::size_t>(shape.elements()) * bytes_of(type),
                    padded = (payload + 3) / 4 * 4;
  Block block{nullptr, guard_bytes + padded + guard_bytes, padded};
  block.data = static_cast<char*>(backend_.allocate(block.bytes));
  blocks_.push_back(block);
  const std::vector<std::int32_t> guards(guard_bytes / 4, guard_word);
  for (char* guard : {block.data, block.data + guard_bytes + padded})
    backend_.copy_from_host(words(guard, guards.size(), backend_.device()), guards.data());
  return Tensor(block.data + guard_bytes, type, shape, backend_.device());
}

Tensor Workspace::take(DType type, Shape shape, std::size_t count, const void* content) {
  if (static_cast<std::size_t>(shape.elements()) != count)
    throw std::logic_error(std::to_string(count) + " numbers for a tensor " + shape.to_string());
  const Tensor tensor = room(type, shape);
  if (count > 0) backend_.copy_from_host(tensor, content);
  return tensor;
}

void Workspace::set(Guards guards) const {
  const auto change = guards == Guards::closed ? __asan_poison_memory_region : __asan_unpoison_memory_region;
  if (!change) return;
  for (const Block& block : blocks_) {
    change(block.data, guard_bytes);
    change(block.data + guard_bytes + block.payload, guard_bytes);
  }
}

void Workspace::seal() {
  backend_.synchronize();  // what writes the guards may have yet to run
  set(Guards::closed);
}

Workspace::~Workspace() {
  set(Guards::open);
  for (const Block& block : blocks_) backend_.release(block.data, block.bytes);
}

std::string Workspace::overwritten() const {
  set(Guards::open);
  std::vector<std::int32_t> guard(guard_bytes / 4);
  for (const Block& block : blocks_)
    for (char* at : {block.data, block.data + guard_bytes + block.payload}) {
      backend_.copy_to_host(guard.data(), words(at, guard.size(), backend_.device()));
      for (const std::int32_t word : guard)
        if (word != guard_word)
          return "memory beside a tensor of " + std::to_string(block.payload) + " bytes was overwritten";
    }
  return {};
}

std::size_t Workspace::bytes() const {
  std::size_t sum = 0;
  for (const Block& block : blocks_) sum += block.bytes;
  return sum;
}

Tensor Workspace::f32(Shape shape, const Values& values) { return floats(shape, reference::cast<float>(values)); }

Tensor Workspace::floats(Shape shape, const std::vector<float>& values) {
  return take(DType::f32, shape, values.size(), values.data());
}

Tensor Workspace::i32(Shape shape, const Ids& values) { return take(DType::i32, shape, values.size(), values.data()); }

Tensor Workspace::f64(const Values& values) {
  return take(DType::f64, {static_cast<Index>(values.size())}, values.size(), values.data());
}

std::vector<float> rounded_to_bf16(std::vector<float> values) {
  for (float& x : values) x = widened(rounded(x));
  return values;
}

Tensor Workspace::bf16(Shape shape, const Values& values) {
  std::vector<Bf16> halves(values.size());
  std::transform(values.begin(), values.end(), halves.begin(), [](double x) { return rounded(static_cast<float>(x)); });
  return take(DType::bf16, shape, halves.size(), halves.data());
}

Tensor Workspace::output_bf16(Shape shape) {
  return bf16(shape, Values(static_cast<std::size_t>(shape.elements()), std::numeric_limits<double>::quiet_NaN()));
}

Tensor Workspace::output(Shape shape) {
  return floats(
      shape, std::vector<float>(static_cast<std::size_t>(shape.elements()), std::numeric_limits<float>::quiet_NaN()));
}

Tensor Workspace::output_i32(Shape shape) {
  return i32(shape, Ids(static_cast<std::size_t>(shape.elements()), no_index));
}

Values Workspace::read(const Tensor& tensor) {
  if (tensor.type() == DType::i32) return reference::cast<double>(read_ids(tensor));
  const auto count = static_cast<std::size_t>(tensor.elements());
  Values values(count);
  if (tensor.type() == DType::f64) {
    if (count > 0) backend_.copy_to_host(values.data(), tensor);
    return values;
  }
  if (tensor.type() == DType::bf16) {
    std::vector<Bf16> halves(count);
    if (count > 0) backend_.copy_to_host(halves.data(), tensor);
    std::transform(halves.begin(), halves.end(), values.begin(), [](Bf16 x) { return widened(x); });
    return values;
  }
  std::vector<float> floats(count);
  if (count > 0) backend_.copy_to_host(floats.data(), tensor);
  return reference::cast<double>(floats);
}

Ids Workspace::read_ids(const Tensor& tensor) {
  Ids values(static_cast<std::size_t>(tensor.elements()));
  if (!values.empty()) backend_.copy_to_host(values.data(), tensor);
  return values;
}

}  // namespace smoe::checks
