#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_noise.h"

namespace smoe {
namespace {

// All rows of [E,N,M] matrices, in parts that threads share: begin(first, count) of a part's numbers, and then
// move(place in the stacks, place in the matrices) for each of them that lies in a block.
template <class Begin, class Move>
void walk_blocks(int threads, const DiagonalBlocks& blocks, const Tensor& matrices, const Begin& begin,
                 const Move& move) {
  const std::int64_t N = matrices.dim(1), M = matrices.dim(2);
  cpu::for_blocks(threads, matrices.dim(0) * N, cpu::block_rows(M), [=](std::int64_t first, std::int64_t last) {
    begin(first * M, (last - first) * M);
    for (std::int64_t row = first; row < last; ++row) {
      std::int64_t stacked = row / N * blocks.elements();
      for (const Block& block : blocks) {
        const std::int64_t i = row % N - block.first_row;
        if (i >= 0 && i < block.rows) {
          const std::int64_t from = stacked + i * block.columns, to = row * M + block.first_column;
          for (std::int64_t j = 0; j < block.columns; ++j) move(from + j, to + j);
        }
        stacked += block.elements();
      }
    }
  });
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
  const float* from = stack.f32();
  float* to = matrices.f32();
  const auto factor = static_cast<float>(scale);
  walk_blocks(
      threads_, blocks, matrices, [=](std::int64_t first, std::int64_t count) { std::fill_n(to + first, count, 0.0f); },
      [=](std::int64_t stacked, std::int64_t spread) { to[spread] = factor * from[stacked]; });
}

void CpuBackend::do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                  const Tensor& stack) {
  const float* from = matrices.f32();
  float* to = stack.f32();
  const auto factor = static_cast<float>(scale);
  walk_blocks(
      threads_, blocks, matrices, [](std::int64_t, std::int64_t) {},
      [=](std::int64_t stacked, std::int64_t spread) { to[stacked] += factor * from[spread]; });
}

}  // namespace smoe
