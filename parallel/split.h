// What a parameter is split over, who then holds the same slice of it, and where a slice lies in the whole tensor.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/tensor.h"
#include "parallel/mesh.h"

namespace smoe {

enum class Split : std::uint8_t {
  none,  // whole on every rank: norms, routers
  tp,    // attention, embedding, head
  ep,    // experts
};
inline constexpr std::array all_splits = {Split::tp, Split::none, Split::ep};  // in the order of flat buffers

// The axis along which the replicas of a slice lie. The one rule of gradients: a parameter's is the SUM over its ranks.
constexpr Axis replica_axis(Split split) {
  switch (split) {
    case Split::tp: return Axis::dp;
    case Split::ep: return Axis::edp;
    case Split::none: break;
  }
  return Axis::world;
}

// Where element i of a slice lies in the whole tensor: both row-major, [n] or [rows, columns], the slice's corner at first.
inline std::int64_t global_index(const Shape& shape, const Shape& slice, const std::array<std::int64_t, 2>& first,
                                 std::int64_t i) {
  const std::int64_t width = shape.rank() == 2 ? shape[1] : 1, slice_width = slice.rank() == 2 ? slice[1] : 1;
  return (first[0] + i / slice_width) * width + first[1] + i % slice_width;
}
// How many elements of the slice follow each other in the whole tensor too: all of them, or those of a row.
inline std::int64_t contiguous_elements(const Shape& shape, const Shape& slice) {
  return slice.rank() == 2 && slice[1] != shape[1] ? slice[1] : slice.elements();
}

}  // namespace smoe
