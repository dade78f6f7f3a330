// Takes tokens to their experts and back: a permutation, and an all-to-all where ep > 1. The only place that knows of
// expert parallelism. Dropless: every assignment is computed, whatever the load.
//
// T tokens, K experts per token, R rows arriving at this rank's experts (T * K on one rank), D hidden.
#pragma once

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"

namespace smoe {

// What dispatch leaves for combine and for both backwards.
struct Dispatched {
  Tensor row_of;         // [T,K] i32: the row of each assignment
  Tensor assignment_of;  // [R] i32: its inverse, t * K + k
  ExpertRows rows;       // where each local expert's rows lie
  Tensor row_weights;    // [R] routing weight of each row
};

class TokenDispatcher {
 public:
  TokenDispatcher(Backend& backend, const Mesh& mesh, std::int64_t experts, std::int64_t experts_per_token);

  std::int64_t local_experts() const { return experts_; }

  // x [T,D], experts [T,K] i32, weights [T,K] -> rows [R,D], sorted by expert, in `keep` with all of `out`.
  Tensor dispatch(Arena& keep, const Tensor& x, const Tensor& experts, const Tensor& weights, Dispatched& out);
  // dx [T,D] and dweights [T,K] are assigned.
  void dispatch_backward(const Tensor& drows, const Tensor& drow_weights, const Dispatched& dispatched, const Tensor& dx,
                         const Tensor& dweights);

  // y[t] = base[t] + the sum of its K rows (their weights were applied by the experts). base may be empty or y.
  void combine(const Tensor& rows, const Dispatched& dispatched, const Tensor& base, const Tensor& y);
  // drows [R,D] is assigned.
  void combine_backward(const Tensor& dy, const Dispatched& dispatched, const Tensor& drows);

 private:
  Backend& backend_;
  std::int64_t experts_, experts_per_token_;
};

}  // namespace smoe
