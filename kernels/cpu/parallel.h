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

// Work for one thread does not enter a parallel region, not even one with a false if clause: libgomp keeps the team of
// the last region only, so teams of one and of many in turn would cost an allocation each.

// Calls body(first, last) for consecutive blocks of [0, n), on up to `threads` threads.
template <class Body>
void for_blocks(int threads, std::int64_t n, std::int64_t block, const Body& body) {
  const std::int64_t blocks = ceil_div(n, block);
  if (blocks <= 1) {
    if (n > 0) body(0, n);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t b = 0; b < blocks; ++b) body(b * block, std::min(n, (b + 1) * block));
}

// Calls body(task) for every task of [0, tasks), on up to `threads` threads. A thread takes the next one when it is
// free, so a task has been started only when all of lower number have.
template <class Body>
void for_tasks(int threads, std::int64_t tasks, const Body& body) {
  if (tasks <= 1) {
    if (tasks == 1) body(0);
    return;
  }
#pragma omp parallel for schedule(monotonic : dynamic, 1) num_threads(threads)
  for (std::int64_t task = 0; task < tasks; ++task) body(task);
}

}  // namespace smoe::cpu
