// Matrix products: cut into tiles, each one computed by one thread, handed out largest first. Every output tile belongs
// to one task, so sums have one order; and a thread that falls behind delays one tile, not the whole product.
#include <omp.h>

#include <algorithm>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/product_bf16.h"

namespace smoe {
namespace {

using cpu::ceil_div;
using cpu::GemmTile;
using cpu::round_up;

// Numbers of C that a tile has, about: more would gain little, fewer cost packing.
constexpr std::int64_t tile_area = 512 * 512;
constexpr int few_threads = 4;
constexpr std::int64_t fewest_rows = 64, fewest_columns = 64;  // of a tile that is cut from more

struct Strides {
  std::int64_t a, b, c;
};

Strides strides_of(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k) {
  return {kind == Gemm::tn ? m : k, kind == Gemm::nt ? k : n, n};
}

}  // namespace

// Each tile packs its rows of A and its columns of B anew, so of the ways to make `count` of them the one is taken that
// packs least: as near to squares as it goes.
void cpu::append_tiles(std::vector<GemmTile>& tiles, Gemm kind, const GemmTile& whole, std::int64_t count) {
  if (whole.m == 0 || whole.n == 0) return;
  std::int64_t row_parts = 1, column_parts = 1;
  for (std::int64_t least = std::numeric_limits<std::int64_t>::max(); count > 1; --count) {
    for (std::int64_t across = 1; across <= count; ++across) {
      const std::int64_t down = count / across, packed = across * whole.m + down * whole.n;
      if (across * down != count || packed >= least) continue;
      if ((down > 1 && whole.m < down * fewest_rows) || (across > 1 && whole.n < across * fewest_columns)) continue;
      least = packed;
      row_parts = down;
      column_parts = across;
    }
    if (row_parts * column_parts > 1) break;
  }
  // In multiples of the vector width.
  const std::int64_t rows = round_up(ceil_div(whole.m, row_parts), 16),
                     columns = round_up(ceil_div(whole.n, column_parts), 16);
  const Strides stride = strides_of(kind, whole.m, whole.n, whole.k);
  for (std::int64_t i = 0; i < whole.m; i += rows)
    for (std::int64_t j = 0; j < whole.n; j += columns)
      tiles.push_back({std::min(rows, whole.m - i), std::min(columns, whole.n - j), whole.k,
                       whole.a + (kind == Gemm::tn ? i : i * stride.a), whole.b + (kind == Gemm::nt ? j * stride.b : j),
                       whole.c + i * stride.c + j, whole.kernel});
}

void CpuBackend::run_tiles(Gemm kind, const Tensor& a, std::int64_t lda, const Tensor& b, std::int64_t ldb,
                           const Tensor& c, std::int64_t ldc, Write write) {
  std::sort(tiles_.begin(), tiles_.end(), [](const GemmTile& x, const GemmTile& y) {
    const std::int64_t work_x = x.m * x.n * x.k, work_y = y.m * y.n * y.k;
    return work_x != work_y ? work_x > work_y : x.c < y.c;
  });
  const bool adds = write == Write::add;
  cpu::for_tasks(threads_, static_cast<std::int64_t>(tiles_.size()), [&](std::int64_t i) {
    const GemmTile& t = tiles_[static_cast<std::size_t>(i)];
    if (a.type() == DType::f32)
      return cpu::product(t.kernel, kind, t.m, t.n, t.k, a.f32() + t.a, lda, b.f32() + t.b, ldb, c.f32() + t.c, ldc,
                          adds);
    cpu::Workspace& room = per_thread_[static_cast<std::size_t>(omp_get_thread_num())];
    const Bf16 *pa = a.bf16() + t.a, *pb = b.bf16() + t.b;
    if (c.type() == DType::f32)
      cpu::product_of_bf16(room, t.kernel, kind, t.m, t.n, t.k, pa, lda, pb, ldb, c.f32() + t.c, ldc, adds);
    else
      cpu::product_of_bf16(room, t.kernel, kind, t.m, t.n, t.k, pa, lda, pb, ldb, c.bf16() + t.c, ldc, adds);
  });
}

void CpuBackend::do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = kind == Gemm::tn ? a.dim(0) : a.dim(1);
  const GemmTile whole{m, n, k, 0, 0, 0, cpu::product_kernel_for(kind, m, n, k)};
  const Strides stride = strides_of(kind, m, n, k);
  tiles_.clear();
  // A multiple of the threads, which share them evenly.
  cpu::append_tiles(tiles_, kind, whole,
                    m * n * k <= 64 * 64 * 64 ? 1 : round_up(ceil_div(m * n, tile_area), threads_));
  run_tiles(kind, a, stride.a, b, stride.b, c, stride.c, write);
}

void CpuBackend::do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                                 Write write) {
  const bool rows_are_summed = kind == Gemm::tn;
  const std::int64_t R = a.dim(0), E = rows.offsets.dim(0) - 1;
  const std::int64_t n = rows_are_summed ? c.dim(2) : c.dim(1), m = a.dim(1), k = a.dim(1);
  const std::int32_t* offsets = rows.host.data();
  tiles_.clear();
  // Experts differ in rows, so there are several tiles for each thread, and the small ones come last. For few threads the cut
  // depends on the sizes alone: at a tile's edges a library adds in another order, and so the bits are the same on any number
  // of them.
  const std::int64_t area = (rows_are_summed ? E * m : R) * n,
                     fewest = threads_ <= few_threads ? 2 * few_threads : 4 * threads_;
  const std::int64_t tile = std::min(tile_area, std::max<std::int64_t>(1, area / fewest));
  const auto append = [&](const GemmTile& whole) {
    cpu::append_tiles(tiles_, kind, whole, ceil_div(whole.m * whole.n, tile));
  };
  for (std::int64_t e = 0; e < E; ++e) {
    const std::int64_t first = offsets[e], count = offsets[e + 1] - first;
    if (rows_are_summed)
      append({m, n, count, first * m, first * n, e * m * n, cpu::product_kernel_for(kind, m, n, count)});
    else
      append({count, n, k, first * k, e * n * k, first * n, cpu::product_kernel_for(kind, count, n, k)});
  }
  const Strides stride = strides_of(kind, m, n, k);
  run_tiles(kind, a, stride.a, b, stride.b, c, stride.c, write);
}

}  // namespace smoe
