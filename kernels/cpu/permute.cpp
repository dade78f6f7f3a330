#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

// Of one group's assignments, whose tokens have these probabilities [T,E] and of which each expert has `counts`: those for
// which their expert has room are set to 0, the others to -1. `order` has room for all of them, `ends` for E + 1.
void admit_by_probability(const std::int32_t* expert, const float* probabilities, const std::int32_t* counts,
                          std::int64_t assignments, std::int64_t K, std::int64_t E, std::int32_t room,
                          std::int32_t* order, std::int32_t* ends, std::int32_t* row) {
  ends[0] = 0;
  for (std::int64_t e = 0; e < E; ++e) ends[e + 1] = ends[e] + counts[e];
  for (std::int64_t i = 0; i < assignments; ++i)
    if (expert[i] >= 0) order[ends[expert[i]]++] = static_cast<std::int32_t>(i);
  std::int32_t* first = order;
  for (std::int64_t e = 0; e < E; ++e) {
    std::int32_t* const last = order + ends[e];
    const auto probability = [&](std::int32_t i) {
      const float p = probabilities[i / K * E + e];
      return std::isnan(p) ? -INFINITY : p;
    };
    const auto goes_before = [&](std::int32_t a, std::int32_t b) {
      const float pa = probability(a), pb = probability(b);
      return pa != pb ? pa > pb : a < b;
    };
    std::int32_t* const behind = first + std::min<std::ptrdiff_t>(room, last - first);
    if (behind != last) std::nth_element(first, behind, last, goes_before);
    for (std::int32_t* i = first; i != last; ++i) row[*i] = i < behind ? 0 : -1;
    first = last;
  }
}

}  // namespace

// A counting sort, on one thread: two passes over T * K integers. In the first, each group of tokens takes what the experts
// have room for: row_of becomes 0, or -1 where there is none.
void CpuBackend::do_routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                                const Tensor& row_of, const Tensor& assignment_of, const Tensor& expert_offsets) {
  const std::int64_t T = experts.dim(0), K = experts.dim(1), E = expert_offsets.dim(0) - 1;
  const std::int32_t* expert = experts.i32();
  cpu::expect_in_range("routing_map", "experts", expert, T * K, E, -1);

  // After counting, offsets[e + 1] is the end of expert e; while rows are handed out, next[e] walks to it.
  std::int32_t *offsets = expert_offsets.i32(), *row = row_of.i32(), *assignment = assignment_of.i32();
  const bool ranked = !probabilities.empty();
  std::int32_t* next =
      shared_.take<std::int32_t>(static_cast<std::size_t>(2 * E + 1 + (ranked ? capacity.group * K : 0)));
  std::fill_n(offsets, E + 1, 0);
  const bool limited = capacity.rows > 0;
  const std::int64_t group = (limited ? capacity.group : T) * K;
  const auto room = static_cast<std::int32_t>(limited ? std::min(capacity.rows, T) : T);
  for (std::int64_t first = 0; first < T * K; first += group) {
    std::fill_n(next, E, 0);
    for (std::int64_t i = first; i < first + group; ++i) row[i] = expert[i] >= 0 && next[expert[i]]++ < room ? 0 : -1;
    if (ranked)
      admit_by_probability(expert + first, probabilities.f32() + first / K * E, next, group, K, E, room,
                           next + 2 * E + 1, next + E, row + first);
    for (std::int64_t e = 0; e < E; ++e) offsets[e + 1] += std::min(next[e], room);
  }
  for (std::int64_t e = 0; e < E; ++e) offsets[e + 1] += offsets[e];
  std::copy_n(offsets, E, next);
  for (std::int64_t i = 0; i < T * K; ++i) {
    if (row[i] < 0) continue;
    row[i] = next[expert[i]]++;
    assignment[row[i]] = static_cast<std::int32_t>(i);
  }
  std::fill(assignment + offsets[E], assignment + T * K, -1);
}

void CpuBackend::do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                            const Tensor& rows) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0), K = experts_per_token;
  const std::int32_t* assignment = assignment_of.i32();
  cpu::expect_in_range("permute", "assignment_of", assignment, R, T * K);
  const float* from = x.f32();
  float* to = rows.f32();
  cpu::for_blocks(threads_, R, cpu::block_rows(D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) cpu::copy_row(from + assignment[r] / K * D, D, to + r * D);
  });
}

void CpuBackend::do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0), K = row_of.dim(1);
  const std::int32_t* row = row_of.i32();
  cpu::expect_in_range("unpermute", "row_of", row, T * K, R, -1);
  const float *from = rows.f32(), *pbase = base.empty() ? nullptr : base.f32();
  float* to = x.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      float* sum = to + t * D;
      if (!pbase)
        std::fill_n(sum, D, 0.0f);
      else if (pbase != to)
        cpu::copy_row(pbase + t * D, D, sum);
      for (std::int64_t k = 0; k < K; ++k) {
        if (row[t * K + k] < 0) continue;
        const float* part = from + row[t * K + k] * D;
#pragma omp simd
        for (std::int64_t d = 0; d < D; ++d) sum[d] += part[d];
      }
    }
  });
}

void CpuBackend::do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) {
  const std::int64_t T = weights.dim(0), K = weights.dim(1), R = row_weights.dim(0);
  const std::int32_t* row = row_of.i32();
  cpu::expect_in_range("permute_weights", "row_of", row, T * K, R, -1);
  const float* from = weights.f32();
  float* to = row_weights.f32();
  for (std::int64_t i = 0; i < T * K; ++i)
    if (row[i] >= 0) to[row[i]] = from[i];
}

void CpuBackend::do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) {
  const std::int64_t T = weights.dim(0), K = weights.dim(1), R = row_weights.dim(0);
  const std::int32_t* row = row_of.i32();
  cpu::expect_in_range("unpermute_weights", "row_of", row, T * K, R, -1);
  const float* from = row_weights.f32();
  float* to = weights.f32();
  for (std::int64_t i = 0; i < T * K; ++i) to[i] = row[i] < 0 ? 0.0f : from[row[i]];
}

}  // namespace smoe
