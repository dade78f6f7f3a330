// Low-rank adapters (see op_calls.h).
#include <fmt/format.h>

#include "tests/kernels/bench_cases.h"
#include "tests/kernels/op_calls.h"
#include "tests/kernels/op_cases_low_rank.h"
#include "tests/reference/noise.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

void add_dropout(OpCase& list, const DropoutCase& c) {
  enum class To { apart, onto, in_place };
  const auto call = [=](To to) {
    return [=](Inputs& in) {
      const Matrix<double> x = in.matrix(c.rows, c.columns), start = in.matrix(c.rows, c.columns);
      const Ids rows = c.listed ? in.ids(c.rows, 1'000'000) : Ids();
      const Write write = to == To::onto ? Write::add : Write::assign;
      const Tensor trows = c.listed ? in.i32({c.rows}, rows) : Tensor(), tx = in.typed(x),
                   y = to == To::apart  ? in.typed_output({c.rows, c.columns})
                       : to == To::onto ? in.typed(start)
                                        : tx;
      return Prepared{[&b = in.backend(), d = c.dropout, trows, tx, y, write] { b.dropout(d, trows, tx, y, write); },
                      {{"y", y, pointwise, [=] {
                          const Dropout& d = c.dropout;
                          std::vector<Index> counted;
                          for (Index r = 0; r < c.rows; ++r) counted.push_back(d.first_row + (c.listed ? rows[r] : r));
                          const Matrix<double> truth = reference::apply_noise(
                              x, reference::dropout_factors({d.key, d.stream, double(d.probability), d.first_column},
                                                            counted, c.columns));
                          return to == To::onto ? reference::add(start, truth).values : truth.values;
                        }}}};
    };
  };
  list.add("dropout", fmt::format("R{} D{}", c.rows, c.columns), c.forward(list.a), call(To::apart));
  list.vary("dropout", "added", call(To::onto));
  list.vary("dropout", "in place", call(To::in_place));
}

// visit(element of a stack, element of the matrices) for each that is in a block.
template <class Visit>
void for_each_in_block(const BlocksCase& c, const Visit& visit) {
  Index stacked = 0;
  for (Index e = 0; e < c.matrices; ++e)
    for (const Block& block : c.blocks)
      for (Index i = 0; i < block.rows; ++i)
        for (Index j = 0; j < block.columns; ++j)
          visit(stacked++, (e * c.rows + block.first_row + i) * c.columns + block.first_column + j);
}

void add_blocks(OpCase& list, const BlocksCase& c) {
  const Shape stacks{c.matrices, c.stacked()}, matrices{c.matrices, c.rows, c.columns};
  const std::string shape = fmt::format("E{} N{} M{}", c.matrices, c.rows, c.columns);
  list.add("spread_blocks", shape, c.forward(list.a), [=](Inputs& in) {
    const Values stack = in.normals(stacks.elements());
    const Tensor tstack = in.typed(stacks, stack), tmatrices = in.typed_output(matrices);
    return Prepared{[&b = in.backend(), blocks = c.diagonal(), scale = c.scale, tstack, tmatrices] {
                      b.spread_blocks(blocks, scale, tstack, tmatrices);
                    },
                    {{"matrices", tmatrices, pointwise, [=] {
                        Values truth(static_cast<std::size_t>(matrices.elements()), 0.0);
                        for_each_in_block(c, [&](Index s, Index m) { truth[m] = c.scale * stack[s]; });
                        return truth;
                      }}}};
  });
  list.add("gather_blocks", shape, c.backward(), [=](Inputs& in) {
    const Values spread = in.normals(matrices.elements()), start = in.normals(stacks.elements());
    const Tensor tmatrices = in.f32(matrices, spread), tstack = in.f32(stacks, start);
    return Prepared{[&b = in.backend(), blocks = c.diagonal(), scale = c.scale, tstack, tmatrices] {
                      b.gather_blocks(blocks, scale, tmatrices, tstack);
                    },
                    {{"stack", tstack, pointwise, [=] {
                        Values truth = start;
                        for_each_in_block(c, [&](Index s, Index m) { truth[s] += c.scale * spread[m]; });
                        return truth;
                      }}}};
  });
}

}  // namespace

std::vector<OpCase> low_rank_calls() {
  std::vector<OpCase> list;
  add_cases(list, "dropout", dropout_cases(), add_dropout);
  add_cases(list, "blocks", blocks_cases(), add_blocks);
  return list;
}

std::vector<OpCase> low_rank_calls(const BenchShape& shape, DType type) {
  std::vector<OpCase> list;
  const OpCase timed = timed_in(type);
  add_cases(list, "dropout", bench_cases::dropout(shape), add_dropout, timed);
  add_cases(list, "blocks", bench_cases::blocks(shape), add_blocks, timed);
  return list;
}

}  // namespace smoe::checks
