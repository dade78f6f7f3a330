// Shape checks of the CPU ops. A wrong shape is a bug of the caller: std::logic_error says which argument of which op.
#pragma once

#include <string>

#include "kernels/tensor.h"

namespace smoe::cpu {

class Expect {
 public:
  explicit Expect(const char* op) : op_(op) {}

  void operator()(const char* argument, const Tensor& tensor, Shape shape, DType type = DType::f32) const {
    if (tensor.type() == type && tensor.device() == Device::cpu && tensor.shape() == shape &&
        (tensor.data() != nullptr || shape.elements() == 0))
      return;
    fail(std::string(argument) + " is " + describe(tensor) + ", expected " + shape.to_string() + " " + name_of(type));
  }
  void indices(const char* argument, const Tensor& tensor, Shape shape) const {
    (*this)(argument, tensor, shape, DType::i32);
  }
  // For arguments that may be empty.
  void optional(const char* argument, const Tensor& tensor, Shape shape, DType type = DType::f32) const {
    if (!tensor.empty()) (*this)(argument, tensor, shape, type);
  }
  void that(bool condition, const char* rule) const {
    if (!condition) fail(rule);
  }
  // Every id of [ids, ids + count) lies in [0, limit): an id outside would read or write foreign memory.
  void in_range(const char* argument, const std::int32_t* ids, std::int64_t count, std::int64_t limit, std::int32_t lowest = 0) const {
    for (std::int64_t i = 0; i < count; ++i)
      if (ids[i] < lowest || ids[i] >= limit)
        fail(std::string(argument) + "[" + std::to_string(i) + "] is " + std::to_string(ids[i]) + ", expected 0 .. " +
             std::to_string(limit - 1));
  }

 private:
  static std::string describe(const Tensor& t) {
    if (t.empty() && t.rank() == 0) return "empty";
    return t.shape().to_string() + " " + name_of(t.type()) + (t.data() ? "" : " without memory") +
           (t.device() == Device::cpu ? "" : " on another device");
  }
  [[noreturn]] void fail(const std::string& what) const { throw std::logic_error(std::string(op_) + ": " + what); }

  const char* op_;
};

}  // namespace smoe::cpu
