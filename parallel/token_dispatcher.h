// Takes tokens to their experts and back: a permutation, and an all-to-all where ep > 1. The only place that knows of
// expert parallelism. Dropless unless told otherwise: every assignment is computed, whatever the load; a rank may send or
// get no row at all. With a capacity, the assignments that an expert has no room for get no row: their token goes on without
// them, and their weight takes no gradient.
//
// T tokens of this rank, K experts per token, A of their T * K assignments with a row (dropless: all but padding's), R rows arriving at
// this rank's experts (A where ep = 1), D hidden. Rank e of the ep group holds experts [e E/ep, (e + 1) E/ep). With ep > 1
// a row's way out is:
//   x [T,D] -> rows by expert [A,D] -> (all-to-all) -> rows by sender [R,D] -> rows by own expert [R,D]
// and its way back the same in reverse; each is the other's backward. Inside an expert, rows are in the order of the
// tokens over the whole ep group.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/host_mirror.h"
#include "parallel/mesh.h"

namespace smoe {

// What dispatch leaves for combine and for both backwards.
struct Dispatched {
  Tensor row_of;  // [T,K] i32: the row of each assignment, among this rank's rows by expert; -1: dropped, or padding's
  Tensor assignment_of;  // [A] i32: its inverse, t * K + k
  ExpertRows rows;       // where each own expert's rows lie; rows.host is own_offsets
  HostMirror<std::int32_t> own_offsets;
  Tensor row_weights;  // [R] routing weight of each row
  Tensor row_numbers;  // [R] i32: the number of its assignment; empty: none were given

  // Where ep > 1: rows to and from each rank of the ep group, and the two orders of what arrives.
  std::vector<std::int64_t> sent, received;
  Tensor arrival_of;  // [R] i32: of each row by own expert, its place among the rows by sender
  Tensor place_of;    // [R] i32: the inverse
};

class TokenDispatcher {
 public:
  // Throws std::logic_error unless the experts divide over the ep group.
  TokenDispatcher(const Mesh& mesh, std::int64_t experts, std::int64_t experts_per_token);

  std::int64_t local_experts() const { return local_experts_; }
  std::int64_t first_expert() const { return group_.rank() * local_experts_; }

  // x [T,D], experts [T,K] i32, weights [T,K] -> rows [R,D], sorted by expert, in `keep` with all of `out`.
  // probabilities [T,E]: see Backend::routing_map; may be empty where the capacity does not go by them. padding: some
  // tokens may have no experts, and get no row. numbers [T,K] i32: of the assignments, which go with them; may be empty.
  Tensor dispatch(Backend& backend, Arena& keep, Arena& scratch, const Tensor& x, const Tensor& experts,
                  const Tensor& weights, Dispatched& out, const Capacity& capacity = {},
                  const Tensor& probabilities = {}, bool padding = false, const Tensor& numbers = {});
  // dx [T,D] and dweights [T,K] are assigned.
  void dispatch_backward(Backend& backend, Arena& scratch, const Tensor& drows, const Tensor& drow_weights,
                         const Dispatched& dispatched, const Tensor& dx, const Tensor& dweights);

  // y[t] = base[t] + the sum of its K rows (their weights were applied by the experts). base may be empty or y.
  void combine(Backend& backend, Arena& scratch, const Tensor& rows, const Dispatched& dispatched, const Tensor& base,
               const Tensor& y);
  // drows [R,D] is assigned.
  void combine_backward(Backend& backend, Arena& scratch, const Tensor& dy, const Dispatched& dispatched,
                        const Tensor& drows);

 private:
  bool exchanges() const { return group_.size() > 1; }
  // Counts first: how many rows each rank sends to each expert decides everything else. offsets [experts + 1]: where the
  // rows by expert lie.
  void plan_exchange(Backend& backend, Arena& keep, std::span<const std::int32_t> offsets, Dispatched& out);
  // Rows (or weights) by expert [A, ...] -> by own expert [R, ...], and back.
  void send(Backend& backend, Arena& scratch, const Tensor& by_expert, const Dispatched& dispatched,
            const Tensor& by_own_expert, std::string_view label);
  void bring_back(Backend& backend, Arena& scratch, const Tensor& by_own_expert, const Dispatched& dispatched,
                  const Tensor& by_expert, std::string_view label);

  Communicator& group_;
  std::int64_t experts_, local_experts_, experts_per_token_;
  HostMirror<std::int32_t> offsets_;
  std::vector<std::int32_t> sent_counts_, received_counts_, order_, inverse_;  // host, reused from call to call
};

}  // namespace smoe
