// Small helpers of the CPU backend's own tests: tensors that own their memory, filled from a fixed generator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

#include "kernels/device_sums.h"

namespace smoe::test {

class Floats {
 public:
  explicit Floats(Shape shape, float value = 0.0f)
      : values_(static_cast<std::size_t>(std::max<std::int64_t>(1, shape.elements())), value), shape_(shape) {}

  static Floats random(Shape shape, unsigned seed, float scale = 1.0f) {
    Floats result(shape);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    for (float& v : result.values_) v = normal(generator);
    return result;
  }

  operator Tensor() { return Tensor(values_.data(), DType::f32, shape_); }
  float& operator[](std::int64_t i) { return values_[static_cast<std::size_t>(i)]; }
  std::int64_t size() const { return shape_.elements(); }
  std::vector<float>& values() { return values_; }

 private:
  std::vector<float> values_;
  Shape shape_;
};

class Ints {
 public:
  Ints(Shape shape, std::vector<std::int32_t> values) : values_(std::move(values)), shape_(shape) {
    values_.resize(values_.size() + 1);
  }
  explicit Ints(Shape shape) : Ints(shape, std::vector<std::int32_t>(static_cast<std::size_t>(shape.elements()))) {}

  operator Tensor() { return Tensor(values_.data(), DType::i32, shape_); }
  std::int32_t& operator[](std::int64_t i) { return values_[static_cast<std::size_t>(i)]; }
  std::vector<std::int32_t> values() const { return {values_.begin(), values_.end() - 1}; }

 private:
  std::vector<std::int32_t> values_;  // one more than the shape asks for, so that data() is never null
  Shape shape_;
};

inline double sum(Backend& backend, const Tensor& x) {
  DeviceSums sums(backend);
  sums.reset(1);
  backend.sum(x, sums[0]);
  return sums.read()[0];
}

inline double sum_of_squares(Backend& backend, const Tensor& x) {
  DeviceSums sums(backend);
  sums.reset(1);
  backend.sum_of_squares(x, sums[0]);
  return sums.read()[0];
}

}  // namespace smoe::test
