// A tensor is a view: where the numbers lie, what they are, and how many there are in each dim. It owns nothing,
// is always contiguous and row-major, and is free to copy. Memory comes from an Arena (kernels/arena.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>

#include "kernels/bf16.h"

namespace smoe {

enum class DType : std::uint8_t { f32, bf16, i32, f64 };  // f64: sums alone
enum class Device : std::uint8_t { cpu, cuda };
enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda, check };
// Where make_backend() (kernels/backend.h) computes by that choice; automatic: on a GPU where there is one; check: on a GPU,
// each op held against the CPU's.
Device device_of(DeviceChoice choice);

constexpr std::size_t bytes_of(DType type) { return type == DType::bf16 ? 2 : type == DType::f64 ? 8 : 4; }
const char* name_of(DType type);

class Shape {
 public:
  static constexpr int max_rank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);

  int rank() const { return rank_; }
  std::int64_t operator[](int dim) const { return dims_[static_cast<std::size_t>(dim)]; }
  std::int64_t elements() const;  // 1 for rank 0
  std::string to_string() const;  // "[4, 512]"
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, max_rank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;  // empty: stands for "not given"
  Tensor(void* data, DType type, Shape shape, Device device = Device::cpu)
      : data_(data), shape_(shape), type_(type), device_(device) {}

  bool empty() const { return data_ == nullptr; }
  DType type() const { return type_; }
  Device device() const { return device_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t elements() const { return empty() ? 0 : shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * bytes_of(type_); }
  // Throws std::logic_error where it holds something else.
  void expect(DType wanted) const {
    if (type_ != wanted) throw_type(wanted);
  }

  // The memory itself, which may be a device's: for kernels/ and the communicators alone (kernels/host_mirror.h serves
  // the others).
  void* raw() const { return data_; }
  float* f32() const { return expect(DType::f32), static_cast<float*>(data_); }
  Bf16* bf16() const { return expect(DType::bf16), static_cast<Bf16*>(data_); }
  std::int32_t* i32() const { return expect(DType::i32), static_cast<std::int32_t*>(data_); }
  double* f64() const { return expect(DType::f64), static_cast<double*>(data_); }

  // The same memory under another shape; throws unless the element counts agree.
  Tensor reshape(Shape shape) const;
  // A tensor of another shape that begins where this one does. The caller knows that the memory goes on so far.
  Tensor from_here(Shape shape) const { return Tensor(data_, type_, shape, device_); }
  // Rows [first, first + count) of dim 0.
  Tensor rows(std::int64_t first, std::int64_t count) const;

 private:
  [[noreturn]] void throw_type(DType wanted) const;

  void* data_ = nullptr;
  Shape shape_;
  DType type_ = DType::f32;
  Device device_ = Device::cpu;
};

}  // namespace smoe
