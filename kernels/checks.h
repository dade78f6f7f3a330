// Checks of an op's arguments, whatever the backend. A wrong one is a bug of the caller: std::logic_error says which
// argument of which op.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels/tensor.h"

namespace smoe {

class Expect {
 public:
  Expect(const char* op, Device device) : op_(op), device_(device) {}

  void operator()(const char* argument, const Tensor& tensor, Shape shape, DType type = DType::f32) const {
    if (tensor.type() == type && is_here(tensor) && tensor.shape() == shape) return;
    fail(std::string(argument) + " is " + describe(tensor) + ", expected " + shape.to_string() + " " + name_of(type));
  }
  void indices(const char* argument, const Tensor& tensor, Shape shape) const { (*this)(argument, tensor, shape, DType::i32); }
  // For arguments that may be empty.
  void optional(const char* argument, const Tensor& tensor, Shape shape, DType type = DType::f32) const {
    if (!tensor.empty()) (*this)(argument, tensor, shape, type);
  }
  // f32 or bf16: the type of the weights and activations of one call, which its other arguments share.
  DType computing_type(const char* argument, const Tensor& tensor) const {
    if (tensor.type() != DType::f32 && tensor.type() != DType::bf16) fail(std::string(argument) + " is " + describe(tensor) + ", expected f32 or bf16");
    return tensor.type();
  }
  // For what is computed in f32 and may be rounded to that type.
  void either(const char* argument, const Tensor& tensor, Shape shape, DType type) const {
    (*this)(argument, tensor, shape, tensor.type() == type ? type : DType::f32);
  }
  // Whatever its shape and type.
  void here(const char* argument, const Tensor& tensor) const {
    if (!is_here(tensor)) fail(std::string(argument) + " is " + describe(tensor));
  }
  void that(bool condition, const char* rule) const {
    if (!condition) fail(rule);
  }

 private:
  bool is_here(const Tensor& tensor) const {
    return tensor.device() == device_ && (!tensor.empty() || tensor.shape().elements() == 0);
  }
  std::string describe(const Tensor& t) const {
    if (t.empty() && t.rank() == 0) return "empty";
    return t.shape().to_string() + " " + name_of(t.type()) + (t.empty() ? " without memory" : "") +
           (t.device() == device_ ? "" : " on another device");
  }
  [[noreturn]] void fail(const std::string& what) const { throw std::logic_error(std::string(op_) + ": " + what); }

  const char* op_;
  Device device_;
};

}  // namespace smoe
