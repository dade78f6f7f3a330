// Matrix products, plain and grouped by expert, and the linear layer made of them.
#pragma once

#include "tests/reference/matrix.h"

namespace smoe::reference {

// C[m,n] = A[m,k] B[n,k]^T
template <typename T>
Matrix<T> gemm_nt(const Matrix<T>& a, const Matrix<T>& b) {
  require(a.cols == b.cols, "gemm_nt: inner sizes differ");
  Matrix<T> c(a.rows, b.rows);
  for (Index i = 0; i < a.rows; ++i)
    for (Index j = 0; j < b.rows; ++j) {
      T total(0);
      for (Index k = 0; k < a.cols; ++k) total += a(i, k) * b(j, k);
      c(i, j) = total;
    }
  return c;
}

// C[m,n] = A[m,k] B[k,n]
template <typename T>
Matrix<T> gemm_nn(const Matrix<T>& a, const Matrix<T>& b) {
  require(a.cols == b.rows, "gemm_nn: inner sizes differ");
  Matrix<T> c(a.rows, b.cols);
  for (Index i = 0; i < a.rows; ++i)
    for (Index k = 0; k < a.cols; ++k)
      for (Index j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
  return c;
}

// C[m,n] = A[k,m]^T B[k,n]
template <typename T>
Matrix<T> gemm_tn(const Matrix<T>& a, const Matrix<T>& b) {
  require(a.rows == b.rows, "gemm_tn: inner sizes differ");
  Matrix<T> c(a.cols, b.cols);
  for (Index k = 0; k < a.rows; ++k)
    for (Index i = 0; i < a.cols; ++i)
      for (Index j = 0; j < b.cols; ++j) c(i, j) += a(k, i) * b(k, j);
  return c;
}

// y[T,out] = x[T,in] w[out,in]^T
template <typename T>
Matrix<T> linear_forward(const Matrix<T>& x, const Matrix<T>& w) {
  return gemm_nt(x, w);
}

template <typename T>
Matrix<T> linear_backward(const Matrix<T>& dy, const Matrix<T>& x, const Matrix<T>& w, Matrix<T>& dw /* += */) {
  dw = add(dw, gemm_tn(dy, x));
  return gemm_nn(dy, w);
}

template <typename T>
Matrix<T> row_range(const Matrix<T>& m, Index first, Index count) {
  return {count, m.cols,
          std::vector<T>(m.values.begin() + first * m.cols, m.values.begin() + (first + count) * m.cols)};
}

// One product an expert: expert e holds rows [offsets[e], offsets[e + 1]) of `a` and block e of `b` [E * b_rows, b_cols].
template <typename T, typename Product>
Matrix<T> grouped_by_rows(const Matrix<T>& a, const Matrix<T>& b, const Ids& offsets, Index out_cols, Product product) {
  const Index experts = static_cast<Index>(offsets.size()) - 1;
  const Index b_rows = b.rows / experts;
  Matrix<T> c(a.rows, out_cols);
  for (Index e = 0; e < experts; ++e) {
    const Matrix<T> part =
        product(row_range(a, offsets[e], offsets[e + 1] - offsets[e]), row_range(b, e * b_rows, b_rows));
    for (Index r = 0; r < part.rows; ++r)
      for (Index j = 0; j < out_cols; ++j) c(offsets[e] + r, j) = part(r, j);
  }
  return c;
}

template <typename T>
Matrix<T> grouped_gemm_nt(const Matrix<T>& a /*[R,k]*/, const Matrix<T>& b /*[E*n,k]*/, const Ids& offsets) {
  const Index n = b.rows / (static_cast<Index>(offsets.size()) - 1);
  return grouped_by_rows(a, b, offsets, n, gemm_nt<T>);
}

template <typename T>
Matrix<T> grouped_gemm_nn(const Matrix<T>& a /*[R,k]*/, const Matrix<T>& b /*[E*k,n]*/, const Ids& offsets) {
  return grouped_by_rows(a, b, offsets, b.cols, gemm_nn<T>);
}

// [E*m, n]: block e is A_e^T B_e over the rows of expert e; zeros where it has none.
template <typename T>
Matrix<T> grouped_gemm_tn(const Matrix<T>& a /*[R,m]*/, const Matrix<T>& b /*[R,n]*/, const Ids& offsets) {
  const Index experts = static_cast<Index>(offsets.size()) - 1;
  Matrix<T> c(experts * a.cols, b.cols);
  for (Index e = 0; e < experts; ++e)
    for (Index r = offsets[e]; r < offsets[e + 1]; ++r)
      for (Index i = 0; i < a.cols; ++i)
        for (Index j = 0; j < b.cols; ++j) c(e * a.cols + i, j) += a(r, i) * b(r, j);
  return c;
}

}  // namespace smoe::reference
