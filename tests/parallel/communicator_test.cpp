#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/arena.h"
#include "parallel/mesh.h"
#include "parallel/token_dispatcher.h"

namespace smoe {
namespace {

// A group of one is the identity for every collective, so that no caller asks how large its group is.
TEST(SelfCommunicator, IsTheIdentity) {
  const auto group = make_self_communicator();
  std::array<float, 6> in{1, 2, 3, 4, 5, 6}, out{};
  const Tensor from(in.data(), DType::f32, {3, 2}), to(out.data(), DType::f32, {3, 2});
  const auto expect_equal = [&] {
    EXPECT_EQ(in, out);
    out.fill(0);
  };

  group->all_gather(from, to, "gather");
  expect_equal();
  group->reduce_scatter(from, to, "scatter");
  expect_equal();
  const std::array<std::int64_t, 1> rows{3};
  group->all_to_all_v(from, rows, to, rows, "exchange");
  expect_equal();

  const auto before = in;
  group->all_reduce(from, Reduce::sum, "sum");
  group->broadcast(from, 0, "broadcast");
  group->barrier("barrier");
  EXPECT_EQ(in, before);
  EXPECT_EQ(group->size(), 1);
  EXPECT_EQ(group->rank(), 0);
}

TEST(SelfCommunicator, RefusesWhatAGroupOfOneCannotMean) {
  const auto group = make_self_communicator();
  std::array<float, 4> a{}, b{};
  const Tensor four(a.data(), DType::f32, {4}), two(b.data(), DType::f32, {2});
  EXPECT_THROW(group->all_gather(four, two, "gather"), std::logic_error);
  EXPECT_THROW(group->broadcast(four, 1, "broadcast"), std::logic_error);
}

TEST(Mesh, OfASingleRankHasSizeOneAlongEveryAxis) {
  const Mesh mesh = Mesh::single();
  for (Axis axis : {Axis::world, Axis::dp, Axis::tp, Axis::edp, Axis::ep}) {
    EXPECT_EQ(mesh.size(axis), 1);
    EXPECT_EQ(mesh.rank(axis), 0);
  }
  EXPECT_TRUE(mesh.is_root());
}

// Dispatch then combine is x * (sum of weights) when experts return weight * row; the backwards are the transposes.
TEST(TokenDispatcher, RowsComeBackToTheirTokens) {
  const auto backend = make_cpu_backend(2);
  Arena arena(*backend), scratch(*backend);
  const Mesh mesh = Mesh::single();
  constexpr std::int64_t tokens = 4, experts = 3, k = 2, hidden = 2;
  TokenDispatcher dispatcher(mesh, experts, k);
  std::array<float, tokens * hidden> x{1, 2, 3, 4, 5, 6, 7, 8};
  std::array<std::int32_t, tokens * k> chosen{2, 0, 2, 0, 0, 2, 2, 0};  // expert 1 gets nothing
  std::array<float, tokens * k> weights{.75f, .25f, .5f, .5f, 1.f, 0.f, .125f, .875f};
  const Tensor xt(x.data(), DType::f32, {tokens, hidden}), et(chosen.data(), DType::i32, {tokens, k}),
      wt(weights.data(), DType::f32, {tokens, k});
  Dispatched saved;
  const Tensor rows = dispatcher.dispatch(*backend, arena, scratch, xt, et, wt, saved);
  ASSERT_EQ(rows.dim(0), tokens * k);
  EXPECT_EQ(std::vector<std::int32_t>(saved.rows.host.begin(), saved.rows.host.end()),
            (std::vector<std::int32_t>{0, 4, 4, 8}));
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int32_t row = saved.row_of.i32()[t * k + j];
      EXPECT_EQ(saved.assignment_of.i32()[row], t * k + j);
      EXPECT_EQ(saved.row_weights.f32()[row], weights[static_cast<std::size_t>(t * k + j)]);
      EXPECT_EQ(rows.f32()[row * hidden], x[static_cast<std::size_t>(t * hidden)]);
    }
  const Tensor back = arena.take({tokens, hidden});
  dispatcher.combine(*backend, scratch, rows, saved, {}, back);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back.f32()[i], 2 * x[i]);
  dispatcher.combine(*backend, scratch, rows, saved, xt, back);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back.f32()[i], 3 * x[i]);

  const Tensor dweights = arena.take({tokens, k}), dx = arena.take({tokens, hidden});
  dispatcher.dispatch_backward(*backend, scratch, rows, saved.row_weights, saved, dx, dweights);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(dx.f32()[i], 2 * x[i]);
  for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_EQ(dweights.f32()[i], weights[i]);
}

}  // namespace
}  // namespace smoe
