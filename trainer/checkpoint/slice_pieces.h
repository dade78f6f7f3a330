// A rank's slice of a parameter as runs that lie together in the whole tensor, and so in a file.
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel/parameter.h"
#include "parallel/split.h"

namespace smoe {

// Calls move(first element of the whole, first of the part, count) for each contiguous piece of elements
// [first, first + count) of a parameter's slice.
template <class Move>
void for_each_piece(const Parameter& p, std::int64_t first, std::int64_t count, Move&& move) {
  const std::int64_t together = contiguous_elements(p.shape, p.slice);
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t n = std::min(together - (first + done) % together, count - done);
    move(global_index(p.shape, p.slice, p.first, first + done), done, n);
    done += n;
  }
}

}  // namespace smoe
