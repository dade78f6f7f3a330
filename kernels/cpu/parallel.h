// How the CPU ops divide their work: into blocks that depend on the sizes alone, never on the number of threads, so
// that sums taken block by block have the same bits on any number of them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace smoe::cpu {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t multiple) { return ceil_div(a, multiple) * multiple; }

// Elements that one thread handles at least: below this the start of a parallel region costs more than it saves.
constexpr std::int64_t block_elements = 16384;
// The same, in rows of a given width.
inline std::int64_t block_rows(std::int64_t width) {
  return std::max<std::int64_t>(1, block_elements / std::max<std::int64_t>(1, width));
}

// Calls body(first, last) for consecutive blocks of [0, n), on up to `threads` threads.
template <class Body>
void for_blocks(int threads, std::int64_t n, std::int64_t block, const Body& body) {
  const std::int64_t blocks = ceil_div(n, block);
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) body(b * block, std::min(n, (b + 1) * block));
}

}  // namespace smoe::cpu
