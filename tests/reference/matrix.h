// The oracle's only container: an owning, row-major matrix of float, double or std::complex<double>.
//
// The oracle is plain loops, one op family a header, forward and hand-written backward adjacent. Every function is a
// template over its number type T, so that the same text runs in three roles:
//   float                 what fp32 costs by itself, without tiles or threads;
//   double                the truth that fp32 backends and the model are compared with;
//   std::complex<double>  complex-step differentiation (Squire & Trapp 1998): F(x + ih) carries dF/dx * h in its imaginary
//                         part without cancellation, and proves the hand-written backward to 1e-12.
// The last role asks for analytic arithmetic: no abs, no conjugate; choices (maxima, top-k) look at real parts alone.
// Nothing here includes another folder: an error in the kernels cannot hide in the truth they are measured by.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace smoe::reference {

using Index = std::int64_t;
using Complex = std::complex<double>;
using Ids = std::vector<std::int32_t>;

inline double real_part(float x) { return x; }
inline double real_part(double x) { return x; }
inline double real_part(const Complex& x) { return x.real(); }

template <typename T>
struct Matrix {
  Index rows = 0, cols = 0;
  std::vector<T> values;

  Matrix() = default;
  Matrix(Index rows, Index cols, T fill = T(0)) : rows(rows), cols(cols), values(rows * cols, fill) {}
  Matrix(Index rows, Index cols, std::vector<T> numbers) : rows(rows), cols(cols), values(std::move(numbers)) {
    if (static_cast<Index>(values.size()) != rows * cols)
      throw std::logic_error("Matrix: values do not fill the shape");
  }

  T& operator()(Index row, Index col) { return values[row * cols + col]; }
  const T& operator()(Index row, Index col) const { return values[row * cols + col]; }
};

inline void require(bool condition, const char* what) {
  if (!condition) throw std::logic_error(what);
}

template <typename To, typename From>
std::vector<To> cast(const std::vector<From>& from) {
  std::vector<To> to;
  to.reserve(from.size());
  for (const From& value : from) to.push_back(static_cast<To>(value));
  return to;
}

template <typename To, typename From>
Matrix<To> cast(const Matrix<From>& from) {
  return {from.rows, from.cols, cast<To>(from.values)};
}

template <typename T>
std::vector<T> add(const std::vector<T>& a, const std::vector<T>& b) {
  require(a.size() == b.size(), "add: sizes differ");
  std::vector<T> out = a;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += b[i];
  return out;
}

template <typename T>
Matrix<T> add(const Matrix<T>& a, const Matrix<T>& b) {
  require(a.rows == b.rows && a.cols == b.cols, "add: shapes differ");
  return {a.rows, a.cols, add(a.values, b.values)};
}

template <typename T>
T sum(const std::vector<T>& x) {
  T total(0);
  for (const T& value : x) total += value;
  return total;
}

template <typename T>
T sum_of_squares(const std::vector<T>& x) {
  T total(0);
  for (const T& value : x) total += value * value;
  return total;
}

// Rows [first, first + count) of m.
template <typename T>
Matrix<T> rows(const Matrix<T>& m, Index first, Index count) {
  return {count, m.cols,
          std::vector<T>(m.values.begin() + first * m.cols, m.values.begin() + (first + count) * m.cols)};
}

// Columns [first, first + count) of m, and the reverse.
template <typename T>
Matrix<T> columns(const Matrix<T>& m, Index first, Index count) {
  Matrix<T> out(m.rows, count);
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < count; ++c) out(r, c) = m(r, first + c);
  return out;
}

template <typename T>
void set_columns(Matrix<T>& m, Index first, const Matrix<T>& part) {
  for (Index r = 0; r < m.rows; ++r)
    for (Index c = 0; c < part.cols; ++c) m(r, first + c) = part(r, c);
}

}  // namespace smoe::reference
