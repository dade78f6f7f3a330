#include "data/shards/best_fit.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <stdexcept>

namespace smoe {
namespace {

constexpr std::uint32_t no_sequence = std::numeric_limits<std::uint32_t>::max();

// A set of numbers below a limit, of which the least that is not below another is found in a few steps: a tree of which
// each node has 64 children, and a bit for each says whether there is anything in it.
class NumberSet {
 public:
  explicit NumberSet(std::size_t limit) {
    do levels_.emplace_back(limit = (limit + 63) / 64);
    while (limit > 1);
  }

  void insert(std::size_t number) {
    for (auto& level : levels_) {
      level[number / 64] |= std::uint64_t{1} << number % 64;
      number /= 64;
    }
  }
  void erase(std::size_t number) {
    for (auto& level : levels_) {
      if (level[number / 64] &= ~(std::uint64_t{1} << number % 64)) return;
      number /= 64;
    }
  }
  // The least number of the set that is `from` or more; the limit or more: there is none.
  std::size_t first_from(std::size_t from) const {
    for (std::size_t level = 0; level < levels_.size(); ++level) {
      const std::size_t word = from / 64;
      if (word >= levels_[level].size()) break;
      if (const std::uint64_t found = levels_[level][word] & (~std::uint64_t{0} << from % 64)) {
        from = word * 64 + static_cast<std::size_t>(std::countr_zero(found));
        for (; level > 0; --level)
          from = from * 64 + static_cast<std::size_t>(std::countr_zero(levels_[level - 1][from]));
        return from;
      }
      from = word + 1;
    }
    return std::numeric_limits<std::size_t>::max();
  }

 private:
  std::vector<std::vector<std::uint64_t>> levels_;  // of the numbers themselves first
};

// The longest first, of two alike the earlier: a counting sort. Those of length 0 are left out.
std::vector<std::uint32_t> by_falling_length(std::span<const std::uint32_t> lengths, std::size_t capacity) {
  std::vector<std::uint32_t> place(capacity + 1, 0);  // of the next document of each length
  for (const std::uint32_t length : lengths) ++place[length];
  std::uint32_t before = 0;
  for (std::size_t length = capacity; length > 0; --length) {
    const std::uint32_t count = place[length];
    place[length] = before;
    before += count;
  }
  std::vector<std::uint32_t> order(before);
  for (std::size_t d = 0; d < lengths.size(); ++d)
    if (lengths[d] > 0) order[place[lengths[d]]++] = static_cast<std::uint32_t>(d);
  return order;
}

// The sequence of each document, numbered as they begin.
std::vector<std::uint32_t> place_documents(std::span<const std::uint32_t> lengths, std::size_t capacity,
                                           std::uint32_t& sequences) {
  std::vector<std::uint32_t> sequence_of(lengths.size(), no_sequence);
  std::vector<std::uint32_t> last(capacity + 1, no_sequence);  // with so much room, that which got it last
  std::vector<std::uint32_t> before;                           // of each sequence: the one with as much before it
  NumberSet rooms(capacity + 1);
  sequences = 0;
  for (const std::uint32_t d : by_falling_length(lengths, capacity)) {
    std::size_t room = rooms.first_from(lengths[d]);
    std::uint32_t sequence;
    if (room <= capacity) {
      sequence = last[room];
      last[room] = before[sequence];
      if (last[room] == no_sequence) rooms.erase(room);
    } else {
      room = capacity;
      sequence = sequences++;
      before.push_back(no_sequence);
    }
    sequence_of[d] = sequence;
    room -= lengths[d];
    if (room == 0) continue;
    before[sequence] = last[room];
    if (last[room] == no_sequence) rooms.insert(room);
    last[room] = sequence;
  }
  return sequence_of;
}

}  // namespace

PackedSequences pack_best_fit(std::span<const std::uint32_t> lengths, std::int64_t capacity) {
  if (lengths.size() >= no_sequence) throw std::logic_error("pack_best_fit: as many documents as 32 bits can number");
  if (std::any_of(lengths.begin(), lengths.end(), [&](std::uint32_t length) { return length > capacity; }))
    throw std::logic_error("pack_best_fit: a document that is longer than a sequence");
  std::uint32_t sequences = 0;
  std::vector<std::uint32_t> sequence_of = place_documents(lengths, static_cast<std::size_t>(capacity), sequences);

  // Numbered again, by their first documents.
  std::vector<std::uint32_t> number(sequences, no_sequence);
  std::uint32_t next = 0;
  PackedSequences packed;
  packed.begin_.assign(std::size_t{sequences} + 1, 0);
  for (std::uint32_t& sequence : sequence_of) {
    if (sequence == no_sequence) continue;
    if (number[sequence] == no_sequence) number[sequence] = next++;
    sequence = number[sequence];
    ++packed.begin_[std::size_t{sequence} + 1];
  }
  for (std::size_t s = 0; s < sequences; ++s) packed.begin_[s + 1] += packed.begin_[s];
  packed.documents_.resize(packed.begin_.back());
  std::copy(packed.begin_.begin(), packed.begin_.end() - 1, number.begin());  // where each one's next document goes
  for (std::size_t d = 0; d < sequence_of.size(); ++d)
    if (sequence_of[d] != no_sequence) packed.documents_[number[sequence_of[d]]++] = static_cast<std::uint32_t>(d);
  return packed;
}

}  // namespace smoe
