// A tensor's numbers in f32 where the host can read and write them: in place where the backend's memory is the host's and
// they are f32, else through a copy. For what happens once in a while: initial weights, files, comparisons.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace smoe {

class HostView {
 public:
  // f32 or bf16. staging: room for the copy, which one view after another may use.
  HostView(Backend& backend, const Tensor& tensor, std::vector<float>& staging)
      : backend_(backend), tensor_(tensor), is_copy_(backend.device() != Device::cpu || tensor.type() != DType::f32) {
    if (tensor.type() != DType::bf16) tensor.expect(DType::f32);
    const auto count = static_cast<std::size_t>(tensor.elements());
    if (is_copy_ && staging.capacity() < count) staging = std::vector<float>();  // or both would be there at once
    if (is_copy_) staging.resize(count);
    numbers_ = {is_copy_ ? staging.data() : tensor.f32(), count};
  }

  std::span<float> numbers() const { return numbers_; }
  // Before the host reads: numbers() are the tensor's.
  void fetch() const {
    if (!is_copy_) return;
    if (tensor_.type() == DType::f32) return backend_.copy_to_host(numbers_.data(), tensor_);
    in_parts([&](const Tensor& part, std::span<float> numbers, std::vector<Bf16>& halves) {
      backend_.copy_to_host(halves.data(), part);
      std::transform(halves.begin(), halves.end(), numbers.begin(), [](Bf16 x) { return widened(x); });
    });
  }
  // After the host has written: the tensor's are numbers(), rounded if it is bf16.
  void store() const {
    if (!is_copy_) return;
    if (tensor_.type() == DType::f32) return backend_.copy_from_host(tensor_, numbers_.data());
    in_parts([&](const Tensor& part, std::span<float> numbers, std::vector<Bf16>& halves) {
      std::transform(numbers.begin(), numbers.end(), halves.begin(), [](float x) { return rounded(x); });
      backend_.copy_from_host(part, halves.data());
    });
  }

 private:
  // So that beside the numbers a few MiB of their halves are enough, however large the tensor.
  template <class Move>
  void in_parts(const Move& move) const {
    constexpr std::size_t at_once = std::size_t{1} << 21;
    const Tensor all = tensor_.reshape({tensor_.elements()});
    std::vector<Bf16> halves;
    for (std::size_t first = 0; first < numbers_.size(); first += at_once) {
      halves.resize(std::min(at_once, numbers_.size() - first));
      move(all.rows(static_cast<std::int64_t>(first), static_cast<std::int64_t>(halves.size())),
           numbers_.subspan(first, halves.size()), halves);
    }
  }

  Backend& backend_;
  Tensor tensor_;
  bool is_copy_;
  std::span<float> numbers_;
};

// A copy of a tensor's numbers, f32 or bf16; of an empty one there are none.
inline std::vector<float> numbers_of(Backend& backend, const Tensor& tensor) {
  std::vector<float> numbers;
  if (tensor.empty()) return numbers;
  const HostView view(backend, tensor, numbers);
  view.fetch();
  return {view.numbers().begin(), view.numbers().end()};
}

}  // namespace smoe
