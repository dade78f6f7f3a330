// RMSNorm (Zhang & Sennrich 2019): y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon).
#pragma once

#include "tests/reference/matrix.h"

namespace smoe::reference {

template <typename T>
struct RmsNorm {
  Matrix<T> y;          // [T, D]
  std::vector<T> rstd;  // [T]
};

template <typename T>
RmsNorm<T> rms_norm_forward(const Matrix<T>& x, const std::vector<T>& weight, double epsilon) {
  RmsNorm<T> out{Matrix<T>(x.rows, x.cols), std::vector<T>(x.rows)};
  for (Index t = 0; t < x.rows; ++t) {
    T squares(0);
    for (Index d = 0; d < x.cols; ++d) squares += x(t, d) * x(t, d);
    out.rstd[t] = T(1) / std::sqrt(squares / T(x.cols) + T(epsilon));
    for (Index d = 0; d < x.cols; ++d) out.y(t, d) = x(t, d) * out.rstd[t] * weight[d];
  }
  return out;
}

// With g = dy * weight: dx = dresidual + rstd * (g - x * rstd^2 * mean(g * x)); dweight += sum_t dy * x * rstd.
// dresidual: the gradient of the residual branch that left before the norm.
template <typename T>
Matrix<T> rms_norm_backward(const Matrix<T>& dy, const Matrix<T>& x, const std::vector<T>& weight,
                            const std::vector<T>& rstd, const Matrix<T>& dresidual, std::vector<T>& dweight /* += */) {
  Matrix<T> dx = dresidual;
  for (Index t = 0; t < x.rows; ++t) {
    T projection(0);
    for (Index d = 0; d < x.cols; ++d) projection += dy(t, d) * weight[d] * x(t, d);
    projection /= T(x.cols);
    for (Index d = 0; d < x.cols; ++d) {
      dx(t, d) += rstd[t] * (dy(t, d) * weight[d] - x(t, d) * rstd[t] * rstd[t] * projection);
      dweight[d] += dy(t, d) * x(t, d) * rstd[t];
    }
  }
  return dx;
}

}  // namespace smoe::reference
