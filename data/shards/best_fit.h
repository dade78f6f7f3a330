// Which documents share a sequence, so that none is cut and few positions stay empty: best-fit decreasing, "Fewer
// Truncations Improve Language Modeling" (Ding et al. 2024, arXiv 2404.10830, algorithm 1).
//
// Documents go by length, the longest first and of two alike the earlier, each into the sequence that it leaves with the
// least room; of several with as much, the one that got it last. None has room: a new one begins. That a document takes the
// sequence with the least room is one look-up in a tree over the sizes that room may have, so all of them take
// O(n log S), whatever n.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace smoe {

// Sequences in the order of their first documents, and in each its documents in their order.
class PackedSequences {
 public:
  PackedSequences() = default;
  std::int64_t size() const { return static_cast<std::int64_t>(begin_.size()) - 1; }
  // Of one sequence: indices of the lengths.
  std::span<const std::uint32_t> documents(std::int64_t sequence) const {
    const auto at = static_cast<std::size_t>(sequence);
    return std::span(documents_).subspan(begin_[at], begin_[at + 1] - begin_[at]);
  }

 private:
  friend PackedSequences pack_best_fit(std::span<const std::uint32_t>, std::int64_t);

  std::vector<std::uint32_t> documents_;
  std::vector<std::uint32_t> begin_{0};  // [size + 1]
};

// A document of length 0 is in none. Throws std::logic_error where one is longer than the capacity, or there are 2^32 - 1
// or more. A pure function of its arguments. Takes 16 bytes a document while it works, and 8 at most are kept.
PackedSequences pack_best_fit(std::span<const std::uint32_t> lengths, std::int64_t capacity);

}  // namespace smoe
