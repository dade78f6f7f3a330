// Collectives over one group of ranks. Size 1 is the identity, so no caller asks how large its group is.
//
// Order is a rule: every rank of a group calls the same collectives in the same order, from one thread, also where it
// has nothing to send. The label names the call in diagnostics ("attention.gather") and in the count of bytes sent; it
// must be a string literal, because it is kept.
//
// Sums have one order, so the same layout gives the same bits on every run, and every rank of a group gets the same bits. Over
// MPI it is the order of the ranks; over NCCL it is the library's, for that size and those GPUs. What a rank sends, for a
// group of n and a buffer of P bytes (all of it, not one rank's part):
//   all_gather, reduce_scatter   (n - 1) / n * P            all_reduce   2 (n - 1) / n * P, to rounding; over MPI of fewer than
//   all_to_all_v                 the rows that leave                     1024 elements, and of bf16 over NCCL, (n - 1) * P
//   broadcast                    (n - 1) * P by the root, nothing by others
//
// Tensors of host memory always work (host_tensor() makes them), and those of the device whose backend use() named; of another
// it throws std::logic_error. What is read and written is in place when a call returns, unless the call says otherwise. Of a
// device, the communicator puts itself in the order of its backend (kernels/backend.h): it reads behind all ops called
// before, those called after read behind it, and nobody waits for it by name.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

#include "kernels/tensor.h"

namespace smoe {

class Backend;

// Integers of the host as a tensor [n] i32, for the collectives: a vector, array or span of 32-bit ones.
template <class Numbers>
Tensor host_tensor(Numbers& numbers) {
  static_assert(std::is_integral_v<std::remove_reference_t<decltype(numbers[0])>> &&
                sizeof(numbers[0]) == sizeof(std::int32_t));
  return {numbers.data(), DType::i32, {static_cast<std::int64_t>(numbers.size())}};
}

enum class Reduce : std::uint8_t { sum, max };  // max of a NaN and a number may be either

// A collective that was started: a number of the communicator's own.
struct Started {
  std::uint64_t number = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Whose tensors the calls are about to be given; leave() before that backend ends.
  virtual void use(Backend&) {}
  virtual void leave(Backend&) noexcept {}

  // In place; every rank ends with the reduction over the group. f32, bf16 (summed in f32, rounded once) or i32.
  virtual void all_reduce(const Tensor& x, Reduce op, std::string_view label) = 0;
  // Host numbers (counts, losses, flags).
  virtual void all_reduce(std::span<double> x, Reduce op, std::string_view label) = 0;
  // out [size * n, ...] = the ranks' in [n, ...], in rank order. in may be this rank's part of out.
  virtual void all_gather(const Tensor& in, const Tensor& out, std::string_view label) = 0;
  // out [n, ...] = this rank's part of the sum over ranks of in [size * n, ...]. out may be that part of in. Types as
  // all_reduce().
  virtual void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) = 0;
  // The same, in place (the sum replaces this rank's part of x), and returns before it is done, so that the sender
  // computes meanwhile. x must be left alone until finish_started(), or until two more have been started: at most two
  // are on their way, because each needs memory for what arrives.
  virtual void start_reduce_scatter(const Tensor& x, std::string_view label) = 0;
  virtual void finish_started() = 0;
  // all_gather() that may return before it is done: in and out are left alone until finish(), which is called once for each,
  // in any order.
  virtual Started start_all_gather(const Tensor& in, const Tensor& out, std::string_view label) {
    all_gather(in, out, label);
    return {};
  }
  virtual void finish(Started) {}
  // Rows of dim 0: rank r gets send_rows[r] of ours, we get receive_rows[r] of its. in and out must not overlap.
  virtual void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                            std::span<const std::int64_t> receive_rows, std::string_view label) = 0;
  virtual void broadcast(const Tensor& x, int root, std::string_view label) = 0;
  virtual void barrier(std::string_view label) = 0;
};

// The group of this rank alone.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace smoe
