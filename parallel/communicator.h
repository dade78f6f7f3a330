// Collectives over one group of ranks. Size 1 is the identity, so no caller asks how large its group is.
//
// Order is a rule: every rank of a group calls the same collectives in the same order, from one thread, also where it
// has nothing to send. The label names the call in diagnostics ("grad.reduce_scatter", "router.counts").
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "kernels/tensor.h"

namespace smoe {

enum class Reduce : std::uint8_t { sum, max };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place; every rank ends with the reduction over the group. f32 or i32.
  virtual void all_reduce(const Tensor& x, Reduce op, std::string_view label) = 0;
  // Host numbers (counts, losses, flags).
  virtual void all_reduce(std::span<double> x, Reduce op, std::string_view label) = 0;
  // out [size * n, ...] = the ranks' in [n, ...], in rank order. in may be this rank's part of out.
  virtual void all_gather(const Tensor& in, const Tensor& out, std::string_view label) = 0;
  // out [n, ...] = this rank's part of the sum over ranks of in [size * n, ...]. out may be that part of in.
  virtual void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) = 0;
  // Rows of dim 0: rank r gets send_rows[r] of ours, we get receive_rows[r] of its. in and out must not overlap.
  virtual void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                            std::span<const std::int64_t> receive_rows, std::string_view label) = 0;
  virtual void broadcast(const Tensor& x, int root, std::string_view label) = 0;
  virtual void barrier(std::string_view label) = 0;
};

// The group of this rank alone.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace smoe
