#include <cstddef>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/token_noise.h"

namespace smoe {
namespace {
using namespace cuda;

// A block has a row, as in jitter.cu. shift: by how much the first column is behind a multiple of a draw's entries; 0 where
// W > 1.
template <class A, int W>
__global__ void dropout_kernel(Dropout dropout, std::uint32_t threshold, float scale, const std::int32_t* rows,
                               const A* x, A* y, int columns, int shift, bool adds) {
  constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
  const std::int64_t r = blockIdx.x;
  const auto row = static_cast<std::uint64_t>(dropout.first_row + (rows ? rows[r] : r));
  x += r * columns, y += r * columns;
  for (int d = static_cast<int>(threadIdx.x) * entries - shift; d < columns;
       d += static_cast<int>(blockDim.x) * entries) {
    float factors[entries];
#pragma unroll
    for (int i = 0; i < entries; i += entries_of_a_draw) {
      std::uint32_t words[entries_of_a_draw];
      draw_words(dropout.key, row, static_cast<int>((dropout.first_column + d + i) / entries_of_a_draw), dropout.stream,
                 words);
#pragma unroll
      for (int w = 0; w < entries_of_a_draw; ++w) factors[i + w] = words[w] < threshold ? 0.0f : scale;
    }
#pragma unroll
    for (int i = 0; i < entries; i += W) {
      if (d + i >= columns) break;
      if (W == 1 && d + i < 0) continue;
      float from[W], to[W]{};
      load(x + d + i, from);
      if (adds) load(y + d + i, to);
#pragma unroll
      for (int w = 0; w < W; ++w) to[w] += factors[i + w] == 0.0f ? 0.0f : from[w] * factors[i + w];
      store(y + d + i, to);
    }
  }
}

// Stacks of blocks, and the matrices in which they lie. All blocks that there may be are asked, which unrolls: a list that is
// indexed would be copied to the stack of each thread. Those that are missing are empty.
struct BlockMap {
  DiagonalBlocks blocks;
  std::int64_t stacked;  // elements of a matrix's blocks
  std::int64_t rows, columns;

  // Where an element of a stack lies in the matrices.
  __device__ std::int64_t spread_place(std::int64_t element) const {
    const std::int64_t e = element / stacked;
    std::int64_t at = element % stacked, place = 0;
#pragma unroll
    for (std::size_t b = 0; b < DiagonalBlocks::most; ++b) {
      const Block& block = blocks[b];
      if (at >= 0 && at < block.elements())
        place = (block.first_row + at / block.columns) * columns + block.first_column + at % block.columns;
      at -= block.elements();
    }
    return e * rows * columns + place;
  }
  // The inverse; -1 for what is in no block.
  __device__ std::int64_t stacked_place(std::int64_t element) const {
    const std::int64_t row = element / columns % rows, column = element % columns;
    std::int64_t at = element / columns / rows * stacked;
#pragma unroll
    for (std::size_t b = 0; b < DiagonalBlocks::most; ++b) {
      const Block& block = blocks[b];
      const std::int64_t i = row - block.first_row, j = column - block.first_column;
      if (i >= 0 && i < block.rows && j >= 0 && j < block.columns) return at + i * block.columns + j;
      at += block.elements();
    }
    return -1;
  }
};

// A thread has an element of the matrices.
template <class A>
__global__ void spread_blocks_kernel(BlockMap map, float scale, const A* stack, A* matrices, std::int64_t elements) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const std::int64_t from = map.stacked_place(i);
  matrices[i] = from_float<A>(from < 0 ? 0.0f : scale * to_float(stack[from]));
}

// A thread has an element of the stacks.
__global__ void gather_blocks_kernel(BlockMap map, float scale, const float* matrices, float* stack,
                                     std::int64_t elements) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < elements) stack[i] += scale * matrices[map.spread_place(i)];
}

BlockMap map_of(const DiagonalBlocks& blocks, const Tensor& matrices) {
  return {blocks, blocks.elements(), matrices.dim(1), matrices.dim(2)};
}

}  // namespace

void CudaBackend::do_dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y,
                             Write write) {
  const std::int64_t R = x.dim(0), D = x.dim(1);
  const int shift = static_cast<int>(dropout.first_column % entries_of_a_draw);
  const std::int32_t* row_of = rows.empty() ? nullptr : rows.i32();
  const auto run = [&]<class A, int W>() {
    constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
    launch(stream_, "dropout", {R, threads_for(ceil_div(D + shift, entries), 256)}, dropout_kernel<A, W>, dropout,
           dropout.threshold(), dropout.scale(), row_of, data<A>(x), data<A>(y), static_cast<int>(D), shift,
           write == Write::add);
  };
  by_type(x.type(), [&]<class A>() {
    if (shift != 0)
      run.template operator()<A, 1>();
    else
      by_width<A>(D, {x, y}, run);
  });
}

void CudaBackend::do_spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack,
                                   const Tensor& matrices) {
  by_type(stack.type(), [&]<class A>() {
    launch(stream_, "spread_blocks", over(matrices.elements()), spread_blocks_kernel<A>, map_of(blocks, matrices),
           static_cast<float>(scale), data<A>(stack), data<A>(matrices), matrices.elements());
  });
}

void CudaBackend::do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                   const Tensor& stack) {
  launch(stream_, "gather_blocks", over(stack.elements()), gather_blocks_kernel, map_of(blocks, matrices),
         static_cast<float>(scale), matrices.f32(), stack.f32(), stack.elements());
}

}  // namespace smoe
