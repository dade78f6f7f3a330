// Rows that move as they are.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {

inline constexpr int pieces_at_once = 4;

// Threads of a block that moves a row of so many pieces: each has some on their way at once, which hides that the row had
// first to be looked up.
constexpr int threads_for_copy(std::int64_t pieces) { return threads_for(ceil_div(pieces, pieces_at_once), 256); }

// The whole block copies one row; from null: zeros.
template <class Piece>
__device__ void copy_row(const Piece* from, Piece* to, int pieces) {
  for (int first = threadIdx.x; first < pieces; first += pieces_at_once * blockDim.x) {
    Piece piece[pieces_at_once]{};
#pragma unroll
    for (int i = 0; i < pieces_at_once; ++i) {
      const int at = first + i * static_cast<int>(blockDim.x);
      if (from && at < pieces) piece[i] = from[at];
    }
#pragma unroll
    for (int i = 0; i < pieces_at_once; ++i) {
      const int at = first + i * static_cast<int>(blockDim.x);
      if (at < pieces) to[at] = piece[i];
    }
  }
}

}  // namespace smoe::cuda
