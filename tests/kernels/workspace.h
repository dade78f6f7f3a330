// Tensors on a backend, between guards that show stray writes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/reference/matrix.h"

namespace smoe::checks {

using reference::Ids;
using reference::Index;
using Values = std::vector<double>;

// The nearest numbers that bf16 has.
std::vector<float> rounded_to_bf16(std::vector<float> values);

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  Tensor f32(Shape shape, const Values& values);  // rounded to float
  Tensor f32(Shape shape, const reference::Matrix<double>& matrix) { return f32(shape, matrix.values); }
  Tensor f32(const reference::Matrix<double>& matrix) { return f32({matrix.rows, matrix.cols}, matrix.values); }
  Tensor floats(Shape shape, const std::vector<float>& values);
  Tensor bf16(Shape shape, const Values& values);  // rounded to float, and that to bf16
  Tensor i32(Shape shape, const Ids& values);
  Tensor f64(const Values& values);
  Tensor room(DType type, Shape shape);  // of any contents
  Tensor output(Shape shape);            // full of NaN
  Tensor output_bf16(Shape shape);
  Tensor output_i32(Shape shape);  // full of a number that is no valid index

  Values read(const Tensor& tensor);  // of any type
  Ids read_ids(const Tensor& tensor);

  std::size_t bytes() const;  // taken so far
  // In a program with the address sanitizer: what reads or writes beside a tensor from now on ends it, with its line.
  void seal();
  // Of a tensor beside which memory was overwritten; empty: of none.
  std::string overwritten() const;

 private:
  struct Block {
    char* data;
    std::size_t bytes, payload;
  };
  enum class Guards { closed, open };
  void set(Guards guards) const;
  Tensor take(DType type, Shape shape, std::size_t count, const void* content);

  Backend& backend_;
  std::vector<Block> blocks_;
};

}  // namespace smoe::checks
