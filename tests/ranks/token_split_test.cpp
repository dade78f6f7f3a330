// The tokens of a micro-batch divided over the ranks of a tp group: gathered, and summed back.
#include "parallel/token_split.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

constexpr std::int64_t local_rows = 3;

// A small whole number that tells the rank and the place; sums of them are exact.
float number(int rank, std::int64_t i) { return static_cast<float>((rank + 1) * 100 + 7 * i % 50); }

class TokenSplitOverRanks : public ::testing::Test {
 protected:
  template <class Visit>
  void for_each_layout(const Visit& visit) {
    for (const Layout& layout : layouts_of(test_session().size())) {
      SCOPED_TRACE(layout.to_string());
      const Mesh mesh = Mesh::over(test_session(), layout);
      Arena arena(*backend_);
      visit(mesh, arena);
    }
  }
  Tensor filled(Arena& arena, Shape shape, int rank) const {
    std::vector<float> values;
    for (std::int64_t i = 0; i < shape.elements(); ++i) values.push_back(number(rank, i));
    const Tensor t = arena.take(shape);
    backend_->copy_from_host(t, values.data());
    return t;
  }
  std::vector<float> read(const Tensor& t) const {
    std::vector<float> values(static_cast<std::size_t>(t.elements()));
    backend_->copy_to_host(values.data(), t);
    return values;
  }
  // World rank of the member of this rank's tp group that has a place in it: tp ranks are neighbours.
  static int member(const Mesh& mesh, int place) { return mesh.rank(Axis::world) - mesh.rank(Axis::tp) + place; }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
};

TEST_F(TokenSplitOverRanks, EachRankHasARunOfTheTokensInOrder) {
  for_each_layout([](const Mesh& mesh, Arena&) {
    const TokenSplit split(mesh);
    const std::int64_t tokens = 8 * local_rows;
    EXPECT_EQ(split.local(tokens) * mesh.layout().tp, tokens);
    EXPECT_EQ(split.first(tokens), split.local(tokens) * mesh.rank(Axis::tp));
  });
}

TEST_F(TokenSplitOverRanks, GatherPutsTheRanksBehindEachOther) {
  for_each_layout([&](const Mesh& mesh, Arena& arena) {
    const TokenSplit split(mesh);
    const int tp = mesh.size(Axis::tp);
    for (const Shape& shape :
         {Shape{local_rows}, Shape{local_rows, 5}, Shape{local_rows, 2, 3}, Shape{local_rows, 2, 2, 2}}) {
      const Tensor x = filled(arena, shape, mesh.rank(Axis::world));
      const Tensor all = split.gather(arena, x, "test.gather");
      EXPECT_EQ(all.dim(0), tp * local_rows);
      for (int d = 1; d < shape.rank(); ++d) EXPECT_EQ(all.dim(d), shape[d]) << shape.to_string();
      std::vector<float> expected;
      for (int place = 0; place < tp; ++place)
        for (std::int64_t i = 0; i < shape.elements(); ++i) expected.push_back(number(member(mesh, place), i));
      EXPECT_EQ(read(all), expected) << shape.to_string();
    }
  });
}

TEST_F(TokenSplitOverRanks, SumBackLeavesEachRankTheSumOfItsTokens) {
  for_each_layout([&](const Mesh& mesh, Arena& arena) {
    const TokenSplit split(mesh);
    const int tp = mesh.size(Axis::tp);
    const Tensor local = arena.take({local_rows, 4});
    const Tensor term = split.term(arena, local);
    EXPECT_EQ(term.shape(), (Shape{tp * local_rows, 4}));
    backend_->copy(term, filled(arena, term.shape(), mesh.rank(Axis::world)));
    const std::vector<float> before = read(term);
    split.sum_back(term, local, "test.sum");
    EXPECT_EQ(read(term), before) << "the term is left as it was";
    std::vector<float> expected;
    for (std::int64_t i = 0; i < local.elements(); ++i) {
      float sum = 0;
      for (int place = 0; place < tp; ++place)
        sum += number(member(mesh, place), mesh.rank(Axis::tp) * local.elements() + i);
      expected.push_back(sum);
    }
    EXPECT_EQ(read(local), expected);
  });
}

// The two are each other's transpose: summed over the ranks, <gather(x), t> = <x, sum_back(t)>.
TEST_F(TokenSplitOverRanks, TheGradientOfAGatherIsASumBack) {
  for_each_layout([&](const Mesh& mesh, Arena& arena) {
    const TokenSplit split(mesh);
    const Tensor x = filled(arena, {local_rows, 4}, mesh.rank(Axis::world)), dx = arena.take(x.shape());
    const Tensor t = split.term(arena, dx);
    backend_->copy(t, filled(arena, t.shape(), 3 * mesh.rank(Axis::world) + 1));
    const std::vector<float> all = read(split.gather(arena, x, "test.gather")), terms = read(t);
    split.sum_back(t, dx, "test.sum");
    const std::vector<float> mine = read(x), summed = read(dx);
    std::array<double, 2> products{};
    for (std::size_t i = 0; i < all.size(); ++i) products[0] += static_cast<double>(all[i]) * terms[i];
    for (std::size_t i = 0; i < mine.size(); ++i) products[1] += static_cast<double>(mine[i]) * summed[i];
    mesh.group(Axis::tp).all_reduce(std::span<double>(products), Reduce::sum, "test.products");
    EXPECT_EQ(products[0], products[1]);
    EXPECT_NE(products[0], 0);
  });
}

TEST_F(TokenSplitOverRanks, OneRankCopiesAndSendsNothing) {
  for_each_layout([&](const Mesh& mesh, Arena& arena) {
    if (mesh.size(Axis::tp) > 1) return;
    const TokenSplit split(mesh);
    const Tensor x = filled(arena, {local_rows, 4}, 0);
    mesh.traffic().reset();
    EXPECT_EQ(split.gather(arena, x, "test.gather").raw(), x.raw());
    EXPECT_EQ(split.term(arena, x).raw(), x.raw());
    split.sum_back(x, x, "test.sum");
    EXPECT_EQ(mesh.traffic().bytes("test.gather") + mesh.traffic().bytes("test.sum"), 0);
  });
}

}  // namespace
}  // namespace smoe
