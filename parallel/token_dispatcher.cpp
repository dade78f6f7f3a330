#include "parallel/token_dispatcher.h"

#include <stdexcept>

namespace smoe {

TokenDispatcher::TokenDispatcher(Backend& backend, const Mesh& mesh, std::int64_t experts, std::int64_t experts_per_token)
    : backend_(backend), experts_(experts), experts_per_token_(experts_per_token) {
  if (mesh.size(Axis::ep) != 1) throw std::logic_error("this dispatcher serves a mesh with ep = 1");
}

Tensor TokenDispatcher::dispatch(Arena& keep, const Tensor& x, const Tensor& experts, const Tensor& weights, Dispatched& out) {
  const std::int64_t tokens = x.dim(0), rows = tokens * experts_per_token_;
  out.row_of = keep.take(DType::i32, {tokens, experts_per_token_});
  out.assignment_of = keep.take(DType::i32, {rows});
  out.rows.offsets = keep.take(DType::i32, {experts_ + 1});
  out.rows.host = out.rows.offsets.i32();
  out.row_weights = keep.take({rows});
  backend_.routing_map(experts, out.row_of, out.assignment_of, out.rows);
  backend_.permute_weights(weights, out.row_of, out.row_weights);
  Tensor permuted = keep.take({rows, x.dim(1)});
  backend_.permute(x, out.assignment_of, experts_per_token_, permuted);
  return permuted;
}

void TokenDispatcher::dispatch_backward(const Tensor& drows, const Tensor& drow_weights, const Dispatched& dispatched,
                                        const Tensor& dx, const Tensor& dweights) {
  backend_.unpermute(drows, dispatched.row_of, {}, dx);
  backend_.unpermute_weights(drow_weights, dispatched.row_of, dweights);
}

void TokenDispatcher::combine(const Tensor& rows, const Dispatched& dispatched, const Tensor& base, const Tensor& y) {
  backend_.unpermute(rows, dispatched.row_of, base, y);
}

void TokenDispatcher::combine_backward(const Tensor& dy, const Dispatched& dispatched, const Tensor& drows) {
  backend_.permute(dy, dispatched.assignment_of, experts_per_token_, drows);
}

}  // namespace smoe
