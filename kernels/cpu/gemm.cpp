// Matrix products: cut into tiles, each one computed by one thread, handed out largest first. Every output tile belongs to
// one task, so sums have one order; and a thread that falls behind delays one tile, not the whole product.
#include <algorithm>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

using cpu::ceil_div;
using cpu::GemmTile;
using cpu::round_up;

constexpr std::int64_t most_rows = 512;      // of a tile: more gains nothing,
constexpr std::int64_t fewest_rows = 128;    // fewer costs: each tile packs its operands anew
constexpr std::int64_t fewest_columns = 64;  // likewise

struct Strides {
  std::int64_t a, b, c;
};

Strides strides_of(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k) {
  return {kind == Gemm::tn ? m : k, kind == Gemm::nt ? k : n, n};
}

// Cuts one product into tiles of about rows x columns.
void append_tiles(std::vector<GemmTile>& tiles, Gemm kind, const GemmTile& whole, std::int64_t rows, std::int64_t columns) {
  if (whole.m == 0 || whole.n == 0) return;
  const Strides stride = strides_of(kind, whole.m, whole.n, whole.k);
  // Equal parts, in multiples of the vector width.
  rows = round_up(ceil_div(whole.m, ceil_div(whole.m, rows)), 16);
  columns = round_up(ceil_div(whole.n, ceil_div(whole.n, columns)), 16);
  for (std::int64_t i = 0; i < whole.m; i += rows)
    for (std::int64_t j = 0; j < whole.n; j += columns)
      tiles.push_back({std::min(rows, whole.m - i), std::min(columns, whole.n - j), whole.k,
                       whole.a + (kind == Gemm::tn ? i : i * stride.a), whole.b + (kind == Gemm::nt ? j * stride.b : j),
                       whole.c + i * stride.c + j, whole.kernel});
}


}  // namespace

void CpuBackend::run_tiles(Gemm kind, std::int64_t lda, std::int64_t ldb, std::int64_t ldc, bool accumulate) {
  std::sort(tiles_.begin(), tiles_.end(), [](const GemmTile& x, const GemmTile& y) {
    const std::int64_t work_x = x.m * x.n * x.k, work_y = y.m * y.n * y.k;
    return work_x != work_y ? work_x > work_y : x.c < y.c;
  });
  cpu::for_tasks(threads_, static_cast<std::int64_t>(tiles_.size()), [&](std::int64_t i) {
    const GemmTile& t = tiles_[static_cast<std::size_t>(i)];
    cpu::product(t.kernel, kind, t.m, t.n, t.k, t.a, lda, t.b, ldb, t.c, ldc, accumulate);
  });
}

void CpuBackend::gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, bool accumulate) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = kind == Gemm::tn ? a.dim(0) : a.dim(1);
  const cpu::Expect expect("gemm");
  expect("a", a, kind == Gemm::tn ? Shape{k, m} : Shape{m, k});
  expect("b", b, kind == Gemm::nt ? Shape{n, k} : Shape{k, n});
  expect("c", c, {m, n});
  const GemmTile whole{m, n, k, a.f32(), b.f32(), c.f32(), cpu::product_kernel_for(kind, m)};
  const Strides stride = strides_of(kind, m, n, k);
  tiles_.clear();
  if (m * n * k <= 64 * 64 * 64) {
    append_tiles(tiles_, kind, whole, std::max<std::int64_t>(1, m), std::max<std::int64_t>(1, n));
  } else {
    // As many tiles as the threads can share evenly: rows first, columns where there are too few rows.
    const std::int64_t parts = round_up(ceil_div(m, most_rows), threads_);
    const std::int64_t row_parts = std::clamp<std::int64_t>(m / fewest_rows, 1, parts);
    const std::int64_t column_parts = std::min(ceil_div(parts, row_parts), std::max<std::int64_t>(1, n / fewest_columns));
    append_tiles(tiles_, kind, whole, ceil_div(m, row_parts), ceil_div(n, column_parts));
  }
  run_tiles(kind, stride.a, stride.b, stride.c, accumulate);
}

void CpuBackend::grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                              bool accumulate) {
  const bool rows_are_summed = kind == Gemm::tn;
  const std::int64_t R = a.dim(0), E = rows.offsets.dim(0) - 1;
  const std::int64_t n = rows_are_summed ? c.dim(2) : c.dim(1), m = a.dim(1), k = a.dim(1);
  const cpu::Expect expect("grouped_gemm");
  expect.that(E >= 1, "offsets must hold one entry more than there are experts");
  expect.indices("offsets", rows.offsets, {E + 1});
  expect("a", a, {R, a.dim(1)});
  if (rows_are_summed) {
    expect("b", b, {R, n});
    expect("c", c, {E, m, n});
  } else {
    expect("b", b, kind == Gemm::nt ? Shape{E, n, k} : Shape{E, k, n});
    expect("c", c, {R, n});
  }
  const std::int32_t* offsets = rows.offsets.i32();
  expect.that(offsets[0] == 0 && offsets[E] == R && std::is_sorted(offsets, offsets + E + 1),
              "offsets must rise from 0 to the number of rows");

  const float *pa = a.f32(), *pb = b.f32();
  float* pc = c.f32();
  tiles_.clear();
  // Experts differ in rows, so there are several tiles for each thread, and the small ones come last. Columns are cut
  // only where rows do not give tiles enough.
  const std::int64_t cut = rows_are_summed ? E * m : R;
  const std::int64_t tile_rows = std::clamp(round_up(ceil_div(cut, 8 * threads_), 32), fewest_rows, most_rows);
  std::int64_t row_tiles = 0;
  for (std::int64_t e = 0; e < E; ++e)
    row_tiles += rows_are_summed ? ceil_div(m, tile_rows) : ceil_div(offsets[e + 1] - offsets[e], tile_rows);
  const std::int64_t column_parts = ceil_div(4 * threads_, std::max<std::int64_t>(1, row_tiles));
  const std::int64_t tile_columns = std::max(4 * fewest_columns, ceil_div(n, column_parts));
  for (std::int64_t e = 0; e < E; ++e) {
    const std::int64_t first = offsets[e], count = offsets[e + 1] - first;
    if (rows_are_summed)
      append_tiles(tiles_, kind, {m, n, count, pa + first * m, pb + first * n, pc + e * m * n, cpu::product_kernel_for(kind, m)}, tile_rows, tile_columns);
    else
      append_tiles(tiles_, kind, {count, n, k, pa + first * k, pb + e * n * k, pc + first * n, cpu::product_kernel_for(kind, count)}, tile_rows, tile_columns);
  }
  const Strides stride = strides_of(kind, m, n, k);
  run_tiles(kind, stride.a, stride.b, stride.c, accumulate);
}

}  // namespace smoe
