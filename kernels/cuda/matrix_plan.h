// How a product is put to cuBLASLt, which knows matrices by their columns, and which products share a plan.
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/matrix.h"

namespace smoe::cuda {

// out [rows, columns] = op(first) op(second), all by columns: entry (i, j) of an operand lies at [j * stride + i].
struct ByColumns {
  struct Operand {
    const void* data;
    std::int64_t rows, columns;  // as it lies
    std::int64_t stride;         // from column to column
    bool transposed;             // read so
  };
  Operand first, second;
  std::int64_t rows, columns, depth;
  std::int64_t stride;  // of out
};

// Read by columns, a row-major X [r,c] is X^T: c rows, r columns, stride c. So what lies at C is C^T, and
// C^T = (A B)^T = B^T A^T: B comes first, and an operand is transposed where Gemm says so.
inline ByColumns by_columns(const Product& p) {
  const auto as_it_lies = [](const void* data, std::int64_t rows, std::int64_t columns, bool transposed) {
    return ByColumns::Operand{data, columns, rows, columns, transposed};
  };
  const bool a_transposed = p.kind == Gemm::tn, b_transposed = p.kind == Gemm::nt;
  return {.first = b_transposed ? as_it_lies(p.b, p.n, p.k, true) : as_it_lies(p.b, p.k, p.n, false),
          .second = a_transposed ? as_it_lies(p.a, p.k, p.m, true) : as_it_lies(p.a, p.m, p.k, false),
          .rows = p.n,
          .columns = p.m,
          .depth = p.k,
          .stride = p.n};
}

// 1 to 16 exactly, then in eight steps from one power of two to the next, upwards: at most an eighth more.
constexpr std::int64_t rounded_rows(std::int64_t rows) {
  if (rows <= 16) return rows;
  const std::int64_t step = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(rows - 1))) / 8;
  return (rows + step - 1) / step * step;
}

// What the choice of an algorithm depends on. The number of rows, which is another for each expert of each micro-batch, is
// rounded up, so that plans are few: an algorithm suits its neighbours. No stride depends on it.
struct PlanKey {
  std::int64_t m, n, k;
  Gemm kind;
  DType in, out;
  Write write;
  std::uint8_t alignments[3];  // in bytes, of A, B and C: 16 or what is less

  bool operator==(const PlanKey&) const = default;
};

// Of every row of a matrix; no algorithm asks for more than 16.
inline std::uint8_t alignment_of(const void* data, std::int64_t columns, DType type) {
  const std::uint64_t bits =
      reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uint64_t>(columns) * bytes_of(type) | 16;
  return static_cast<std::uint8_t>(bits & -bits);
}

inline PlanKey exact_key(const Product& p) {
  return {p.m,
          p.n,
          p.k,
          p.kind,
          p.in,
          p.out,
          p.write,
          {alignment_of(p.a, p.kind == Gemm::tn ? p.m : p.k, p.in),
           alignment_of(p.b, p.kind == Gemm::nt ? p.k : p.n, p.in), alignment_of(p.c, p.n, p.out)}};
}
inline PlanKey shared_key(const Product& p) {
  PlanKey key = exact_key(p);
  std::int64_t& rows = p.kind == Gemm::tn ? key.k : key.m;
  rows = rounded_rows(rows);
  return key;
}

struct PlanHash {
  std::size_t operator()(const PlanKey& key) const {
    std::uint64_t hash = 0;
    const auto mix = [&](std::uint64_t x) {
      hash = (hash ^ x) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 32;
    };
    mix(static_cast<std::uint64_t>(key.m));
    mix(static_cast<std::uint64_t>(key.n));
    mix(static_cast<std::uint64_t>(key.k));
    std::uint64_t rest = 0;
    for (const auto part :
         {static_cast<std::uint8_t>(key.kind), static_cast<std::uint8_t>(key.in), static_cast<std::uint8_t>(key.out),
          static_cast<std::uint8_t>(key.write), key.alignments[0], key.alignments[1], key.alignments[2]})
      rest = rest << 8 | part;
    mix(rest);
    return hash;
  }
};

}  // namespace smoe::cuda
