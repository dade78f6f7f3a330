#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_noise.h"

namespace smoe {

void CpuBackend::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_row,
                                      std::int64_t vocabulary, const Tensor& out) {
  const std::int64_t T = out.dim(0), V = table.dim(0), D = out.dim(1);
  const std::int32_t* id = ids.i32();
  cpu::expect_in_range("embedding_forward", "ids", id, T, vocabulary, -1);
  const std::int64_t row_bytes =
      D * static_cast<std::int64_t>(bytes_of(table.type()));  // moved as they are, of either type
  const auto* from = static_cast<const std::byte*>(table.raw());
  auto* to = static_cast<std::byte*>(out.raw());
  cpu::for_blocks(threads_, T, cpu::block_rows(D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t row = id[t] - first_row;
      if (row >= 0 && row < V)
        std::memcpy(to + t * row_bytes, from + row * row_bytes, static_cast<std::size_t>(row_bytes));
      else
        std::memset(to + t * row_bytes, 0, static_cast<std::size_t>(row_bytes));
    }
  });
}

// The threads divide the columns: tokens that share an id then add up in token order, on any number of threads.
void CpuBackend::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_row,
                                       std::int64_t vocabulary, const Tensor& dtable) {
  const std::int64_t T = dout.dim(0), V = dtable.dim(0), D = dout.dim(1);
  const std::int32_t* id = ids.i32();
  cpu::expect_in_range("embedding_backward", "ids", id, T, vocabulary, -1);
  const float* from = dout.f32();
  float* to = dtable.f32();
  const std::int64_t columns = std::max<std::int64_t>(16, cpu::round_up(cpu::ceil_div(D, threads_), 16));
  cpu::for_blocks(threads_, D, columns, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = 0; t < T; ++t) {
      const std::int64_t into = id[t] - first_row;
      if (into < 0 || into >= V) continue;
      const float* row = from + t * D;
      float* sum = to + into * D;
#pragma omp simd
      for (std::int64_t d = first; d < last; ++d) sum[d] += row[d];
    }
  });
}

void CpuBackend::do_add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const float* scales = row_scales.f32();
  float* px = x.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * D), [=](std::int64_t first, std::int64_t last) {
    float draws[cpu::noise_entries];
    for (std::int64_t t = first; t < last; ++t) {
      if (scales[t] == 0.0f) continue;
      const float width = noise.width * scales[t];
      for (std::int64_t d = 0; d < D; d += cpu::noise_entries) {
        cpu::draw_noise(noise, static_cast<std::uint64_t>(noise.first_token + t), d, draws);
        const std::int64_t count = std::min(cpu::noise_entries, D - d);
        float* row = px + t * D + d;
        for (std::int64_t i = 0; i < count; ++i) row[i] += width * draws[i];
      }
    }
  });
}

}  // namespace smoe
