#include "parallel/token_dispatcher.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/range.h"

namespace smoe {
namespace {

// [n] as [n, 1], so that the ops on rows move weights too.
Tensor as_rows(const Tensor& x) { return x.rank() == 1 ? x.reshape({x.dim(0), 1}) : x; }

}  // namespace

TokenDispatcher::TokenDispatcher(const Mesh& mesh, std::int64_t experts, std::int64_t experts_per_token)
    : group_(mesh.group(Axis::ep)),
      experts_(experts),
      local_experts_(experts / group_.size()),
      experts_per_token_(experts_per_token) {
  if (local_experts_ * group_.size() != experts)
    throw std::logic_error(std::to_string(experts) + " experts do not divide over " + std::to_string(group_.size()) +
                           " ranks");
}

void TokenDispatcher::plan_exchange(Backend& backend, Arena& keep, std::span<const std::int32_t> offsets,
                                    Dispatched& out) {
  const std::int64_t ranks = group_.size();
  const auto n = static_cast<std::size_t>(experts_);
  sent_counts_.resize(n);
  received_counts_.resize(n);
  for (std::size_t e = 0; e < n; ++e) sent_counts_[e] = offsets[e + 1] - offsets[e];
  const Shape table{ranks, local_experts_};  // [rank of the ep group, its experts]; then [sender, own experts]
  out.sent.assign(static_cast<std::size_t>(ranks), 1);
  group_.all_to_all_v(host_tensor(sent_counts_).reshape(table), out.sent, host_tensor(received_counts_).reshape(table),
                      out.sent, "moe.counts");

  const auto local = static_cast<std::size_t>(local_experts_);
  out.received.assign(static_cast<std::size_t>(ranks), 0);
  std::fill(out.sent.begin(), out.sent.end(), 0);
  std::int64_t arriving = 0;
  for (std::size_t q = 0; q < out.sent.size(); ++q)
    for (std::size_t e = 0; e < local; ++e) {
      out.sent[q] += sent_counts_[q * local + e];
      out.received[q] += received_counts_[q * local + e];
      arriving += received_counts_[q * local + e];
    }

  // Arrivals lie by sender and, of one sender, by expert; experts want all their rows together, senders in order.
  order_.resize(static_cast<std::size_t>(arriving));
  inverse_.resize(static_cast<std::size_t>(arriving));
  out.own_offsets.resize(backend, local_experts_ + 1);
  const std::span<std::int32_t> own_offsets = out.own_offsets.numbers();
  own_offsets[0] = 0;
  std::int32_t place = 0;
  for (std::size_t e = 0; e < local; ++e) {
    std::int32_t arrival = 0;
    for (std::size_t q = 0; q < out.received.size(); ++q)
      for (std::size_t f = 0; f < local; ++f) {
        const std::int32_t count = received_counts_[q * local + f];
        if (f == e)
          for (std::int32_t i = 0; i < count; ++i, ++place) {
            order_[static_cast<std::size_t>(place)] = arrival + i;
            inverse_[static_cast<std::size_t>(arrival + i)] = place;
          }
        arrival += count;
      }
    own_offsets[e + 1] = place;
  }
  out.arrival_of = keep.take(DType::i32, {arriving});
  out.place_of = keep.take(DType::i32, {arriving});
  backend.copy_from_host(out.arrival_of, order_.data());
  backend.copy_from_host(out.place_of, inverse_.data());
  out.rows.offsets = keep.take(DType::i32, {local_experts_ + 1});
  backend.copy_from_host(out.rows.offsets, own_offsets.data());
  out.rows.host = own_offsets;
}

void TokenDispatcher::send(Backend& backend, Arena& scratch, const Tensor& by_expert, const Dispatched& dispatched,
                           const Tensor& by_own_expert, std::string_view label) {
  const ArenaScope scope(scratch);
  const Tensor to = as_rows(by_own_expert), from = as_rows(by_expert), by_sender = scratch.take_like(to);
  group_.all_to_all_v(from, dispatched.sent, by_sender, dispatched.received, label);
  backend.permute(by_sender, dispatched.arrival_of, 1, to);
}

void TokenDispatcher::bring_back(Backend& backend, Arena& scratch, const Tensor& by_own_expert,
                                 const Dispatched& dispatched, const Tensor& by_expert, std::string_view label) {
  const ArenaScope scope(scratch);
  const Tensor from = as_rows(by_own_expert), to = as_rows(by_expert), by_sender = scratch.take_like(from);
  backend.permute(from, dispatched.place_of, 1, by_sender);
  group_.all_to_all_v(by_sender, dispatched.received, to, dispatched.sent, label);
}

Tensor TokenDispatcher::dispatch(Backend& backend, Arena& keep, Arena& scratch, const Tensor& x, const Tensor& experts,
                                 const Tensor& weights, Dispatched& out, const Capacity& capacity,
                                 const Tensor& probabilities, bool padding, const Tensor& numbers) {
  const Range range(backend, "dispatch");
  const std::int64_t tokens = x.dim(0);
  std::int64_t assignments = tokens * experts_per_token_;
  out.row_of = keep.take(DType::i32, {tokens, experts_per_token_});
  out.assignment_of = keep.take(DType::i32, {assignments});
  const Tensor offsets = keep.take(DType::i32, {experts_ + 1});
  backend.routing_map(experts, probabilities, capacity, out.row_of, out.assignment_of, offsets);
  // The products and the exchange are sized by the host: its copy is on the way while rows are moved.
  HostMirror<std::int32_t>& mirror = exchanges() ? offsets_ : out.own_offsets;
  mirror.start_fetch(backend, offsets);
  const Event counted = backend.record();
  if (capacity.rows > 0 || padding) {  // what is moved depends on it
    backend.wait(counted);
    assignments = mirror.numbers().back();
    out.assignment_of = out.assignment_of.rows(0, assignments);
  }
  if (!exchanges()) {
    out.row_weights = keep.take({assignments});
    backend.permute_weights(weights, out.row_of, out.row_weights);
    out.row_numbers = numbers.empty() ? Tensor() : keep.take(DType::i32, {assignments});
    if (!numbers.empty()) backend.permute_weights(numbers, out.row_of, out.row_numbers);
    const Tensor rows = keep.take(x.type(), {assignments, x.dim(1)});
    backend.permute(x, out.assignment_of, experts_per_token_, rows);
    backend.wait(counted);
    out.rows = {offsets, out.own_offsets.numbers()};
    return rows;
  }
  backend.wait(counted);
  plan_exchange(backend, keep, offsets_.numbers(), out);
  const std::int64_t arriving = out.arrival_of.dim(0);
  out.row_weights = keep.take({arriving});
  out.row_numbers = numbers.empty() ? Tensor() : keep.take(DType::i32, {arriving});
  const Tensor rows = keep.take(x.type(), {arriving, x.dim(1)});
  const ArenaScope scope(scratch);
  const Tensor weights_by_expert = scratch.take({assignments}),
               by_expert = scratch.take(x.type(), {assignments, x.dim(1)});
  backend.permute_weights(weights, out.row_of, weights_by_expert);
  backend.permute(x, out.assignment_of, experts_per_token_, by_expert);
  send(backend, scratch, weights_by_expert, out, out.row_weights, "moe.weights");
  send(backend, scratch, by_expert, out, rows, "moe.dispatch");
  if (numbers.empty()) return rows;
  const Tensor numbers_by_expert = scratch.take(DType::i32, {assignments});
  backend.permute_weights(numbers, out.row_of, numbers_by_expert);
  send(backend, scratch, numbers_by_expert, out, out.row_numbers, "moe.numbers");
  return rows;
}

void TokenDispatcher::dispatch_backward(Backend& backend, Arena& scratch, const Tensor& drows,
                                        const Tensor& drow_weights, const Dispatched& dispatched, const Tensor& dx,
                                        const Tensor& dweights) {
  const Range range(backend, "dispatch");
  if (!exchanges()) {
    backend.unpermute(drows, dispatched.row_of, {}, dx);
    backend.unpermute_weights(drow_weights, dispatched.row_of, dweights);
    return;
  }
  const ArenaScope scope(scratch);
  const std::int64_t assignments = dispatched.assignment_of.dim(0);
  const Tensor dweights_by_expert = scratch.take({assignments}),
               by_expert = scratch.take(dx.type(), {assignments, dx.dim(1)});
  bring_back(backend, scratch, drow_weights, dispatched, dweights_by_expert, "moe.weights_backward");
  bring_back(backend, scratch, drows, dispatched, by_expert, "moe.dispatch_backward");
  backend.unpermute(by_expert, dispatched.row_of, {}, dx);
  backend.unpermute_weights(dweights_by_expert, dispatched.row_of, dweights);
}

void TokenDispatcher::combine(Backend& backend, Arena& scratch, const Tensor& rows, const Dispatched& dispatched,
                              const Tensor& base, const Tensor& y) {
  const Range range(backend, "combine");
  if (!exchanges()) return backend.unpermute(rows, dispatched.row_of, base, y);
  const ArenaScope scope(scratch);
  const Tensor by_expert = scratch.take(y.type(), {dispatched.assignment_of.dim(0), y.dim(1)});
  bring_back(backend, scratch, rows, dispatched, by_expert, "moe.combine");
  backend.unpermute(by_expert, dispatched.row_of, base, y);
}

void TokenDispatcher::combine_backward(Backend& backend, Arena& scratch, const Tensor& dy, const Dispatched& dispatched,
                                       const Tensor& drows) {
  const Range range(backend, "combine");
  if (!exchanges()) return backend.permute(dy, dispatched.assignment_of, experts_per_token_, drows);
  const ArenaScope scope(scratch);
  const Tensor by_expert = scratch.take(dy.type(), {dispatched.assignment_of.dim(0), dy.dim(1)});
  backend.permute(dy, dispatched.assignment_of, experts_per_token_, by_expert);
  send(backend, scratch, by_expert, dispatched, drows, "moe.combine_backward");
}

}  // namespace smoe
