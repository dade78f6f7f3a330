// SwiGLU (Shazeer 2020) times the routing weight of the row: a = w * silu(gate) * up, h [R, 2F] = gate | up.
#pragma once

#include "tests/reference/matrix.h"

namespace smoe::reference {

template <typename T>
T sigmoid(const T& x) {
  return T(1) / (T(1) + std::exp(-x));
}

template <typename T>
Matrix<T> swiglu_forward(const Matrix<T>& h, const std::vector<T>& row_weights /* empty: 1 */) {
  const Index F = h.cols / 2;
  Matrix<T> a(h.rows, F);
  for (Index r = 0; r < h.rows; ++r)
    for (Index f = 0; f < F; ++f) {
      const T gate = h(r, f), up = h(r, F + f);
      a(r, f) = (row_weights.empty() ? T(1) : row_weights[r]) * gate * sigmoid(gate) * up;
    }
  return a;
}

template <typename T>
struct SwigluGradients {
  Matrix<T> dh;                 // [R, 2F]
  std::vector<T> drow_weights;  // [R]
};

template <typename T>
SwigluGradients<T> swiglu_backward(const Matrix<T>& h, const std::vector<T>& row_weights, const Matrix<T>& da) {
  const Index F = h.cols / 2;
  SwigluGradients<T> out{Matrix<T>(h.rows, h.cols), std::vector<T>(h.rows)};
  for (Index r = 0; r < h.rows; ++r) {
    const T weight = row_weights.empty() ? T(1) : row_weights[r];
    for (Index f = 0; f < F; ++f) {
      const T gate = h(r, f), up = h(r, F + f), s = sigmoid(gate);
      out.dh(r, f) = da(r, f) * weight * up * s * (T(1) + gate * (T(1) - s));
      out.dh(r, F + f) = da(r, f) * weight * gate * s;
      out.drow_weights[r] += da(r, f) * gate * s * up;
    }
  }
  return out;
}

}  // namespace smoe::reference
