// The checked side of the op table: low-rank adapters. The others are in backend.cpp and backend_moe.cpp.
#include <algorithm>

#include "kernels/backend.h"
#include "kernels/checks.h"

namespace smoe {
namespace {

void expect_blocks(const Expect& expect, const DiagonalBlocks& blocks, const Tensor& stack, DType type,
                   const Tensor& matrices) {
  const std::int64_t E = matrices.dim(0), N = matrices.dim(1), M = matrices.dim(2);
  expect("stack", stack, {E, blocks.elements()}, type);
  expect("matrices", matrices, {E, N, M}, type);
  const auto inside = [=](const Block& block) {
    return block.first_row >= 0 && block.rows >= 0 && block.first_row + block.rows <= N && block.first_column >= 0 &&
           block.columns >= 0 && block.first_column + block.columns <= M;
  };
  expect.that(std::all_of(blocks.begin(), blocks.end(), inside), "the blocks must lie in the matrices");
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    const Block &before = blocks[i - 1], &block = blocks[i];
    expect.that(
        before.first_row + before.rows <= block.first_row && before.first_column + before.columns <= block.first_column,
        "the blocks must follow each other down the diagonal");
  }
}

}  // namespace

void Backend::dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t R = x.dim(0), D = x.dim(1);
  const Expect expect("dropout", device());
  const DType type = expect.computing_type("x", x);
  expect.optional("rows", rows, {R}, DType::i32);
  expect("x", x, {R, D}, type);
  expect("y", y, {R, D}, type);
  expect.that(dropout.probability >= 0 && dropout.probability < 1, "the probability must be in [0, 1)");
  expect.that(dropout.first_row >= 0 && dropout.first_column >= 0, "rows and columns are counted from 0");
  expect.apart({{"y", y}}, {{"rows", rows}});
  expect.apart_or_same({"y", y}, {"x", x});
  do_dropout(dropout, rows, x, y, write);
}

void Backend::spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack, const Tensor& matrices) {
  const Expect expect("spread_blocks", device());
  expect_blocks(expect, blocks, stack, expect.computing_type("stack", stack), matrices);
  expect.apart({{"matrices", matrices}}, {{"stack", stack}});
  do_spread_blocks(blocks, scale, stack, matrices);
}

void Backend::gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices, const Tensor& stack) {
  const Expect expect("gather_blocks", device());
  expect_blocks(expect, blocks, stack, DType::f32, matrices);
  expect.apart({{"stack", stack}}, {{"matrices", matrices}});
  do_gather_blocks(blocks, scale, matrices, stack);
}

}  // namespace smoe
