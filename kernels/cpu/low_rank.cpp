#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_noise.h"

namespace smoe {
namespace {

// visit(first in the stacks, first in the matrices, how many) for each row of a block in rows [first, last) of all [E,N,M]
// matrices: numbers that lie together in both.
template <class Visit>
void for_rows_of_blocks(const DiagonalBlocks& blocks, std::int64_t N, std::int64_t M, std::int64_t first,
                        std::int64_t last, const Visit& visit) {
  for (std::int64_t row = first; row < last; ++row) {
    std::int64_t stacked = row / N * blocks.elements();
    for (const Block& block : blocks) {
      const std::int64_t i = row % N - block.first_row;
      if (i >= 0 && i < block.rows) visit(stacked + i * block.columns, row * M + block.first_column, block.columns);
      stacked += block.elements();
    }
  }
}

}  // namespace

void CpuBackend::do_dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t R = x.dim(0), D = x.dim(1);
  const float* from = x.f32();
  float* to = y.f32();
  const std::int32_t* row_of = rows.empty() ? nullptr : rows.i32();
  const std::uint32_t threshold = dropout.threshold();
  const float scale = dropout.scale();
  const std::int64_t shift = dropout.first_column % 4;  // a draw is four neighbours, and begins at a multiple of four
  cpu::for_blocks(threads_, R, cpu::block_rows(8 * D), [=](std::int64_t first, std::int64_t last) {
    std::uint32_t words[cpu::noise_entries];
    for (std::int64_t r = first; r < last; ++r) {
      const auto row = static_cast<std::uint64_t>(dropout.first_row + (row_of ? row_of[r] : r));
      for (std::int64_t d = -shift; d < D; d += cpu::noise_entries) {
        cpu::draw_words(dropout.key, row, dropout.first_column + d, dropout.stream, words);
        const std::int64_t begin = std::max<std::int64_t>(0, -d), end = std::min(cpu::noise_entries, D - d);
        const float* part = from + r * D + d;
        float* out = to + r * D + d;
        if (write == Write::add)
          for (std::int64_t i = begin; i < end; ++i) out[i] += words[i] < threshold ? 0.0f : part[i] * scale;
        else
          for (std::int64_t i = begin; i < end; ++i) out[i] = words[i] < threshold ? 0.0f : part[i] * scale;
      }
    }
  });
}

void CpuBackend::do_spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack,
                                  const Tensor& matrices) {
  const std::int64_t M = matrices.dim(2);
  const float* from = stack.f32();
  float* to = matrices.f32();
  const auto factor = static_cast<float>(scale);
  cpu::for_blocks(threads_, matrices.dim(0) * matrices.dim(1), cpu::block_rows(M),
                  [=, &matrices](std::int64_t first, std::int64_t last) {
                    std::fill_n(to + first * M, (last - first) * M, 0.0f);
                    for_rows_of_blocks(blocks, matrices.dim(1), M, first, last,
                                       [=](std::int64_t stacked, std::int64_t spread, std::int64_t count) {
                                         for (std::int64_t j = 0; j < count; ++j)
                                           to[spread + j] = factor * from[stacked + j];
                                       });
                  });
}

void CpuBackend::do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                  const Tensor& stack) {
  const std::int64_t M = matrices.dim(2);
  const float* from = matrices.f32();
  float* to = stack.f32();
  const auto factor = static_cast<float>(scale);
  cpu::for_blocks(threads_, matrices.dim(0) * matrices.dim(1), cpu::block_rows(M),
                  [=, &matrices](std::int64_t first, std::int64_t last) {
                    for_rows_of_blocks(blocks, matrices.dim(1), M, first, last,
                                       [=](std::int64_t stacked, std::int64_t spread, std::int64_t count) {
                                         for (std::int64_t j = 0; j < count; ++j)
                                           to[stacked + j] += factor * from[spread + j];
                                       });
                  });
}

}  // namespace smoe
