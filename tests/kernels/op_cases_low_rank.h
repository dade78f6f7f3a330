// Cases of low-rank adapters (see op_cases.h).
#pragma once

#include <string>
#include <vector>

#include "kernels/low_rank.h"
#include "tests/kernels/op_cases.h"

namespace smoe::op_cases {

struct DropoutCase {
  std::string name;
  Index rows, columns;
  Dropout dropout{};
  bool listed = false;  // rows are counted by a list
  Work forward(double a) const { return op_work::dropout(rows * columns, a); }
};

inline std::vector<DropoutCase> dropout_cases() {
  return {{"no_rows", 0, 8, {1, 0, 0.5f}},
          {"one_number", 1, 1, {1, 0, 0.25f}},
          {"none_of_them", 9, 16, {3, 2, 0}},
          {"odd", 37, 29, {0x123456789abcdef, 5, 0.3f, 11}},
          {"listed", 23, 36, {7, 31, 0.5f, 5}, true},
          {"behind_a_draw", 20, 33, {7, 1, 0.5f, 0, 6}},
          {"behind_a_draw_in_pieces", 20, 64, {7, 1, 0.5f, 0, 3}, true},
          {"most_of_them", 20, 40, {8, 3, 0.96f}},
          {"late_row_of_a_late_stream", 21, 14, {~0ull, 0xffffffff, 0.125f, (1ll << 33) + 7, 1ll << 20}},
          {"large", 300, 520, {9, 1000, 0.05f, 5, 520}}};
}

struct BlocksCase {
  std::string name;
  Index matrices, rows, columns;
  std::vector<Block> blocks;
  double scale = 1;
  Index stacked() const {
    Index n = 0;
    for (const Block& block : blocks) n += block.elements();
    return n;
  }
  DiagonalBlocks diagonal() const {
    DiagonalBlocks all;
    for (const Block& block : blocks) all.add(block);
    return all;
  }
  Work forward(double a) const { return op_work::spread_blocks(matrices * stacked(), matrices * rows * columns, a); }
  Work backward() const { return op_work::gather_blocks(matrices * stacked()); }
};

inline std::vector<BlocksCase> blocks_cases() {
  return {{"one_number", 1, 1, 1, {{0, 1, 0, 1}}, 0.5},
          {"whole", 1, 12, 5, {{0, 12, 0, 5}}, 2},
          {"pair_of_each_expert", 3, 14, 8, {{0, 7, 0, 4}, {7, 7, 4, 4}}, 2},
          {"queries_keys_values", 1, 24, 9, {{0, 16, 0, 3}, {16, 4, 3, 3}, {20, 4, 6, 3}}, 1.25},
          {"queries_and_values", 1, 24, 6, {{0, 16, 0, 3}, {20, 4, 3, 3}}, 0.7},
          {"second_of_each_expert", 4, 10, 3, {{5, 5, 0, 3}}},
          {"large", 8, 300, 64, {{0, 150, 0, 32}, {150, 150, 32, 32}}, 2}};
}

}  // namespace smoe::op_cases
