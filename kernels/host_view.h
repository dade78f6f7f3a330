// A tensor's numbers where the host can read and write them: in place where the backend's memory is the host's, through
// a copy where it is a device's. For what happens once in a while: initial weights, files, comparisons.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace smoe {

class HostView {
 public:
  // tensor: f32. staging: room for the copy, which one view after another may use.
  HostView(Backend& backend, const Tensor& tensor, std::vector<float>& staging)
      : backend_(backend), tensor_(tensor), is_copy_(backend.device() != Device::cpu) {
    tensor.expect(DType::f32);
    const auto count = static_cast<std::size_t>(tensor.elements());
    if (is_copy_) staging.resize(count);
    numbers_ = {is_copy_ ? staging.data() : tensor.f32(), count};
  }

  std::span<float> numbers() const { return numbers_; }
  // Before the host reads: numbers() are the tensor's.
  void fetch() const {
    if (is_copy_) backend_.copy_to_host(numbers_.data(), tensor_);
  }
  // After the host has written: the tensor's are numbers().
  void store() const {
    if (is_copy_) backend_.copy_from_host(tensor_, numbers_.data());
  }

 private:
  Backend& backend_;
  Tensor tensor_;
  bool is_copy_;
  std::span<float> numbers_;
};

// A copy of an f32 tensor's numbers; of an empty one there are none.
inline std::vector<float> numbers_of(Backend& backend, const Tensor& tensor) {
  tensor.expect(DType::f32);
  std::vector<float> numbers(static_cast<std::size_t>(tensor.elements()));
  if (!tensor.empty()) backend.copy_to_host(numbers.data(), tensor);
  return numbers;
}

}  // namespace smoe
