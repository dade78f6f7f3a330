// What the ops of low-rank adapters are told beside their tensors (backend.h; LoRA, arXiv 2106.09685).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace smoe {

// Which entries of a [R,D] tensor become 0: each with this probability, by a number that is a pure function of key, stream and
// the entry's place in the whole batch (philox.h), so that backward, recomputation and every layout drop the same. Entry (r, d)
// has the row first_row + r, or first_row + that of r in a list, and the column first_column + d; it is dropped where the
// word `column % 4` of the counter (row, column / 4, stream) is below probability * 2^32.
struct Dropout {
  std::uint64_t key = 0;
  std::uint32_t stream = 0;  // tells apart what is dropped of one row in different places of a model
  float probability = 0;     // [0, 1)
  std::int64_t first_row = 0, first_column = 0;

  std::uint32_t threshold() const { return static_cast<std::uint32_t>(static_cast<double>(probability) * 0x1p32); }
  // What is left is as much larger: the mean stays.
  float scale() const { return static_cast<float>(1.0 / (1.0 - static_cast<double>(probability))); }
};

// A part of a matrix.
struct Block {
  std::int64_t first_row = 0, rows = 0, first_column = 0, columns = 0;
  constexpr std::int64_t elements() const { return rows * columns; }
};

// Blocks down the diagonal of a matrix, of which no two share a row or a column. They are stored one behind the other, each
// row-major.
class DiagonalBlocks {
 public:
  static constexpr std::size_t most = 3;  // the matrices that are multiplied as one: q, k and v

  DiagonalBlocks() = default;
  // Throws std::logic_error for more than `most`.
  constexpr void add(const Block& block) {
    if (count_ == most) throw std::logic_error("more blocks than matrices are multiplied as one");
    blocks_[count_++] = block;
  }

  constexpr const Block* begin() const { return blocks_.data(); }
  constexpr const Block* end() const { return blocks_.data() + count_; }
  constexpr std::size_t size() const { return count_; }
  constexpr const Block& operator[](std::size_t i) const { return blocks_[i]; }
  constexpr std::int64_t elements() const {
    std::int64_t n = 0;
    for (const Block& block : *this) n += block.elements();
    return n;
  }
  constexpr std::int64_t columns() const {
    std::int64_t n = 0;
    for (const Block& block : *this) n += block.columns;
    return n;
  }

 private:
  std::array<Block, most> blocks_{};
  std::size_t count_ = 0;
};

}  // namespace smoe
