// What the arguments of a collective have to be, whoever carries it out. Wrong ones are a mistake of the caller:
// std::logic_error, before anything is sent.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"

namespace smoe {

inline void require_sums(const Tensor& x, std::string_view label) {
  if (x.type() == DType::f64)
    throw std::logic_error(std::string(label) + ": no sums of " + name_of(x.type()) + " tensors");
}

inline void require_gather(const Tensor& in, const Tensor& out, int ranks, std::string_view label) {
  if (in.type() != out.type() || out.bytes() != in.bytes() * static_cast<std::size_t>(ranks))
    throw std::logic_error(std::string(label) + ": all_gather of " + in.shape().to_string() + " into " +
                           out.shape().to_string());
}

inline void require_scatter(const Tensor& in, const Tensor& out, int ranks, std::string_view label) {
  require_sums(in, label);
  if (in.type() != out.type() || in.bytes() != out.bytes() * static_cast<std::size_t>(ranks))
    throw std::logic_error(std::string(label) + ": reduce_scatter of " + in.shape().to_string() + " into " +
                           out.shape().to_string());
}

inline void require_parts(const Tensor& x, int ranks, std::string_view label) {
  require_sums(x, label);
  if (x.elements() % ranks != 0)
    throw std::logic_error(std::string(label) + ": " + x.shape().to_string() + " does not divide over the group");
}

inline void require_root(int root, int ranks, std::string_view label) {
  if (root < 0 || root >= ranks)
    throw std::logic_error(std::string(label) + ": no rank " + std::to_string(root) + " in the group");
}

// Where the rows of each rank begin in the two tensors of an all_to_all_v, in bytes, and where the last ones end.
struct RowPlaces {
  std::vector<std::size_t> send, receive;

  std::size_t sent_to(std::size_t rank) const { return send[rank + 1] - send[rank]; }
  std::size_t received_from(std::size_t rank) const { return receive[rank + 1] - receive[rank]; }

  // Throws where the counts do not add up to the tensors. A warm one takes nothing from the heap.
  void find(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
            std::span<const std::int64_t> receive_rows, int rank, int ranks, std::string_view label) {
    const auto n = static_cast<std::size_t>(ranks), own = static_cast<std::size_t>(rank);
    if (in.type() != out.type() || send_rows.size() != n || receive_rows.size() != n)
      throw std::logic_error(std::string(label) +
                             ": all_to_all_v needs one type, and a row count for each rank of the group");
    const auto row_bytes = [](const Tensor& x) {
      return x.dim(0) ? x.bytes() / static_cast<std::size_t>(x.dim(0)) : 0;
    };
    const std::size_t row = std::max(row_bytes(in), row_bytes(out));
    send.assign(n + 1, 0);
    receive.assign(n + 1, 0);
    for (std::size_t q = 0; q < n; ++q) {
      send[q + 1] = send[q] + static_cast<std::size_t>(send_rows[q]) * row;
      receive[q + 1] = receive[q] + static_cast<std::size_t>(receive_rows[q]) * row;
    }
    if (send[n] != in.bytes() || receive[n] != out.bytes() || send_rows[own] != receive_rows[own])
      throw std::logic_error(std::string(label) + ": the row counts of an all_to_all_v do not add up to its tensors");
  }
};

// The part of x, in equal parts over the group, that is this rank's.
inline Tensor part_of(const Tensor& x, int rank, int ranks) {
  const std::int64_t part = x.elements() / ranks;
  return x.reshape({x.elements()}).rows(rank * part, part);
}

}  // namespace smoe
