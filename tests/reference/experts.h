// The experts of one layer: out[t] = sum_k w2_e (weight[t,k] * silu(w1_e x[t]) * w3_e x[t]), e = experts[t,k].
// The routing weight stands before w2; by linearity that equals weighting the expert's output. An expert of -1 is nobody:
// the assignment is dropped, and its weight has no gradient.
#pragma once

#include "tests/reference/linear.h"
#include "tests/reference/router.h"
#include "tests/reference/swiglu.h"

namespace smoe::reference {

template <typename T>
struct ExpertParameters {
  Matrix<T> w1, w2, w3;  // gate [F, D], down [D, F], up [F, D]
};

// What one expert sees: its tokens, in order, with their weights.
template <typename T>
struct ExpertInput {
  std::vector<Index> assignments;  // t * K + k
  Matrix<T> x;                     // [rows, D]
  std::vector<T> weights;          // [rows]
  Matrix<T> h;                     // [rows, 2F] gate | up
};

template <typename T>
ExpertInput<T> expert_input(const Matrix<T>& x, const Routing<T>& routing, const ExpertParameters<T>& expert, Index e) {
  ExpertInput<T> in;
  for (std::size_t a = 0; a < routing.experts.values.size(); ++a)
    if (routing.experts.values[a] == e) {
      in.assignments.push_back(static_cast<Index>(a));
      in.weights.push_back(routing.weights.values[a]);
    }
  const Index rows = static_cast<Index>(in.assignments.size()), F = expert.w1.rows;
  in.x = Matrix<T>(rows, x.cols);
  for (Index r = 0; r < rows; ++r)
    for (Index d = 0; d < x.cols; ++d) in.x(r, d) = x(in.assignments[r] / routing.experts.cols, d);
  in.h = Matrix<T>(rows, 2 * F);
  set_columns(in.h, 0, gemm_nt(in.x, expert.w1));
  set_columns(in.h, F, gemm_nt(in.x, expert.w3));
  return in;
}

template <typename T>
Matrix<T> experts_forward(const Matrix<T>& x, const Routing<T>& routing,
                          const std::vector<ExpertParameters<T>>& experts) {
  Matrix<T> out(x.rows, x.cols);
  for (Index e = 0; e < static_cast<Index>(experts.size()); ++e) {
    const ExpertInput<T> in = expert_input(x, routing, experts[e], e);
    const Matrix<T> y = gemm_nt(swiglu_forward(in.h, in.weights), experts[e].w2);
    for (Index r = 0; r < y.rows; ++r)
      for (Index d = 0; d < x.cols; ++d) out(in.assignments[r] / routing.experts.cols, d) += y(r, d);
  }
  return out;
}

template <typename T>
struct ExpertsGradients {
  Matrix<T> dx;        // [T, D]
  Matrix<T> dweights;  // [T, K]
};

template <typename T>
ExpertsGradients<T> experts_backward(const Matrix<T>& dout, const Matrix<T>& x, const Routing<T>& routing,
                                     const std::vector<ExpertParameters<T>>& experts,
                                     std::vector<ExpertParameters<T>>& gradients /* += */) {
  const Index K = routing.experts.cols;
  ExpertsGradients<T> out{Matrix<T>(x.rows, x.cols), Matrix<T>(x.rows, K)};
  for (Index e = 0; e < static_cast<Index>(experts.size()); ++e) {
    const ExpertInput<T> in = expert_input(x, routing, experts[e], e);
    const Index rows = in.x.rows, F = experts[e].w1.rows;
    Matrix<T> dy(rows, x.cols);
    for (Index r = 0; r < rows; ++r)
      for (Index d = 0; d < x.cols; ++d) dy(r, d) = dout(in.assignments[r] / K, d);

    const Matrix<T> da = linear_backward(dy, swiglu_forward(in.h, in.weights), experts[e].w2, gradients[e].w2);
    const SwigluGradients<T> dswiglu = swiglu_backward(in.h, in.weights, da);
    const Matrix<T> dx = add(linear_backward(columns(dswiglu.dh, 0, F), in.x, experts[e].w1, gradients[e].w1),
                             linear_backward(columns(dswiglu.dh, F, F), in.x, experts[e].w3, gradients[e].w3));
    for (Index r = 0; r < rows; ++r) {
      out.dweights.values[in.assignments[r]] = dswiglu.drow_weights[r];
      for (Index d = 0; d < x.cols; ++d) out.dx(in.assignments[r] / K, d) += dx(r, d);
    }
  }
  return out;
}

}  // namespace smoe::reference
