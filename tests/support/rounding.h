// What rounding alone may do, from the type of the numbers and the length of the sums: the tolerance of a comparison with
// a truth in double.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/tensor.h"

namespace smoe::test {

// The distance from 1 to the next number of the type: twice what rounding to the nearest may be off by, as a share.
constexpr double epsilon_of(DType type) { return type == DType::bf16 ? 0x1p-7 : std::numeric_limits<float>::epsilon(); }

// The largest error of a sum of `length` products that is made in f32, in any order, and written as `type`. magnitude: the
// sum of the products' sizes, or anything above it, such as the operands' norms multiplied. Twice the bound of Higham,
// Accuracy and Stability of Numerical Algorithms (2002), section 3.1, with room for what the sum is added to.
constexpr double product_rounding(DType type, std::int64_t length, double magnitude) {
  const double written = type == DType::f32 ? 0 : epsilon_of(type);
  return (static_cast<double>(length + 1) * epsilon_of(DType::f32) + written) * magnitude;
}

}  // namespace smoe::test
