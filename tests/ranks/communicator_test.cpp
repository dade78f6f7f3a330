// Every collective over every group of every layout, against sums taken by hand.
#include <gtest/gtest.h>
#include <sched.h>

#include <numeric>
#include <utility>
#include <vector>

#include "parallel/comm/agreement.h"
#include "parallel/cores.h"
#include "parallel/mesh.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

// Numbers that tell the rank and the place, and that floats hold exactly.
float value(int rank, std::int64_t i) { return static_cast<float>(1000 * (rank + 1) + i % 977); }
Tensor view(std::vector<float>& v) { return {v.data(), DType::f32, {static_cast<std::int64_t>(v.size())}}; }
Tensor view(std::vector<std::int32_t>& v) { return {v.data(), DType::i32, {static_cast<std::int64_t>(v.size())}}; }

std::vector<float> values(int rank, std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i)] = value(rank, i);
  return v;
}

// The world ranks of this rank's group along an axis, found by a collective itself.
std::vector<int> world_ranks(Communicator& group) {
  std::vector<std::int32_t> own{test_session().rank()}, all(static_cast<std::size_t>(group.size()));
  group.all_gather(view(own), view(all), "test.members");
  return {all.begin(), all.end()};
}

class Collectives : public ::testing::TestWithParam<std::int64_t> {
 protected:
  template <class Check>
  void over_every_group(const Check& check) {
    for (const Layout& layout : layouts_of(test_session().size())) {
      const Mesh mesh = Mesh::over(test_session(), layout);
      for (const Axis axis : all_axes) {
        SCOPED_TRACE(layout.to_string() + " axis " + name_of(axis));
        check(mesh.group(axis), world_ranks(mesh.group(axis)));
      }
    }
  }
};

TEST_P(Collectives, SumAndGather) {
  const std::int64_t n = GetParam();
  over_every_group([&](Communicator& group, const std::vector<int>& ranks) {
    const auto size = static_cast<std::int64_t>(ranks.size());
    std::vector<float> x = values(test_session().rank(), n);
    group.all_reduce(view(x), Reduce::sum, "test.sum");
    std::vector<std::int32_t> largest{test_session().rank()};
    group.all_reduce(view(largest), Reduce::max, "test.max");
    EXPECT_EQ(largest[0], ranks.back());
    std::vector<double> doubles(static_cast<std::size_t>(n), 0.5 + test_session().rank());
    group.all_reduce(doubles, Reduce::sum, "test.doubles");
    for (std::int64_t i = 0; i < n; ++i) {
      float sum = 0;
      double total = 0;
      for (const int r : ranks) sum += value(r, i), total += 0.5 + r;
      ASSERT_EQ(x[static_cast<std::size_t>(i)], sum) << i;
      ASSERT_EQ(doubles[static_cast<std::size_t>(i)], total) << i;
    }

    std::vector<float> own = values(test_session().rank(), n), all(static_cast<std::size_t>(n * size));
    group.all_gather(view(own), view(all), "test.gather");
    std::vector<float> in_place(static_cast<std::size_t>(n * size));
    const Tensor part = view(in_place).rows(group.rank() * n, n);
    std::copy(own.begin(), own.end(), part.f32());
    group.all_gather(part, view(in_place), "test.gather");
    EXPECT_EQ(all, in_place);
    for (std::int64_t q = 0; q < size; ++q)
      for (std::int64_t i = 0; i < n; ++i)
        ASSERT_EQ(all[static_cast<std::size_t>(q * n + i)], value(ranks[static_cast<std::size_t>(q)], i));
  });
}

TEST_P(Collectives, ReduceScatterAtOnceAndInTheBackground) {
  const std::int64_t n = GetParam();
  over_every_group([&](Communicator& group, const std::vector<int>& ranks) {
    const auto size = static_cast<std::int64_t>(ranks.size());
    const auto expect_sum = [&](const float* part, std::int64_t shift) {
      for (std::int64_t i = 0; i < n; ++i) {
        float sum = 0;
        for (const int r : ranks) sum += value(r, group.rank() * n + i) + static_cast<float>(shift);
        ASSERT_EQ(part[i], sum) << i;
      }
    };
    std::vector<float> in = values(test_session().rank(), n * size), out(static_cast<std::size_t>(n));
    group.reduce_scatter(view(in), view(out), "test.scatter");
    expect_sum(out.data(), 0);
    EXPECT_EQ(in, values(test_session().rank(), n * size)) << "only the part that is asked for may change";
    group.reduce_scatter(view(in), view(in).rows(group.rank() * n, n), "test.scatter");
    expect_sum(in.data() + group.rank() * n, 0);

    // More are started than may be on their way, with another collective in between.
    std::vector<std::vector<float>> several;
    for (std::int64_t s = 0; s < 5; ++s) {
      several.push_back(values(test_session().rank(), n * size));
      for (float& x : several.back()) x += static_cast<float>(s);
    }
    for (auto& x : several) {
      group.start_reduce_scatter(view(x), "test.started");
      group.barrier("test.between");
    }
    group.finish_started();
    for (std::int64_t s = 0; s < 5; ++s) expect_sum(several[static_cast<std::size_t>(s)].data() + group.rank() * n, s);
  });
}

TEST_P(Collectives, RowsGoWhereTheyAreSent) {
  const std::int64_t width = GetParam();
  over_every_group([&](Communicator& group, const std::vector<int>& ranks) {
    // Rank a sends (a + 2 b) % 4 rows to b: some pairs exchange nothing.
    const auto rows = [](int from, int to) { return static_cast<std::int64_t>((from + 2 * to) % 4); };
    std::vector<std::int64_t> outgoing, incoming;
    for (int q = 0; q < group.size(); ++q) {
      outgoing.push_back(rows(group.rank(), q));
      incoming.push_back(rows(q, group.rank()));
    }
    const std::int64_t sent = std::accumulate(outgoing.begin(), outgoing.end(), std::int64_t{0});
    const std::int64_t received = std::accumulate(incoming.begin(), incoming.end(), std::int64_t{0});
    std::vector<float> in = values(test_session().rank(), sent * width),
                       out(static_cast<std::size_t>(received * width) + 1);
    group.all_to_all_v(Tensor(in.data(), DType::f32, {sent, width}), outgoing,
                       Tensor(out.data(), DType::f32, {received, width}), incoming, "test.rows");
    std::size_t at = 0;
    for (int q = 0; q < group.size(); ++q) {
      std::int64_t before = 0;
      for (int b = 0; b < group.rank(); ++b) before += rows(q, b);
      for (std::int64_t i = 0; i < rows(q, group.rank()) * width; ++i)
        ASSERT_EQ(out[at++], value(ranks[static_cast<std::size_t>(q)], before * width + i));
    }
  });
}

TEST_P(Collectives, Broadcast) {
  over_every_group([&](Communicator& group, const std::vector<int>& ranks) {
    for (int root = 0; root < group.size(); ++root) {
      std::vector<float> x = values(test_session().rank(), GetParam());
      group.broadcast(view(x), root, "test.broadcast");
      ASSERT_EQ(x, values(ranks[static_cast<std::size_t>(root)], GetParam()));
    }
  });
}

// These tests run with --bind-to none: all ranks may use the same cores, until they bind themselves.
TEST(CoresOfRanks, AreComparedOverTheWorld) {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  EXPECT_EQ(count_ranks_on_own_cores(world), world.size());
  cpu_set_t before, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one core";
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  one = before;
  if (world.rank() == 0) {
    CPU_ZERO(&one);
    CPU_SET(first, &one);
  } else {
    CPU_CLR(first, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(count_ranks_on_own_cores(world), world.rank() == 0 ? 1 : world.size() - 1);
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Collectives, ::testing::Values(1, 3, 1500, 70001), ::testing::PrintToStringParamName());

TEST(CollectiveTraffic, IsWhatTheFormulasSay) {
  for (const Layout& layout : layouts_of(test_session().size())) {
    const Mesh mesh = Mesh::over(test_session(), layout);
    for (const Axis axis : all_axes) {
      SCOPED_TRACE(layout.to_string() + " axis " + name_of(axis));
      Communicator& group = mesh.group(axis);
      const std::int64_t n = group.size(), part = 2048;
      std::vector<float> own(part), all(static_cast<std::size_t>(part * n));
      mesh.traffic().reset();
      group.all_gather(view(own), view(all), "gather");
      group.reduce_scatter(view(all), view(own), "scatter");
      group.start_reduce_scatter(view(all), "started");
      group.finish_started();
      group.all_reduce(view(all), Reduce::sum, "reduce");
      group.broadcast(view(own), 0, "broadcast");
      const std::int64_t whole = 4 * part * n;
      EXPECT_EQ(mesh.traffic().bytes("gather"), whole / n * (n - 1));
      EXPECT_EQ(mesh.traffic().bytes("scatter"), whole / n * (n - 1));
      EXPECT_EQ(mesh.traffic().bytes("started"), whole / n * (n - 1));
      EXPECT_EQ(mesh.traffic().bytes("reduce"), 2 * whole / n * (n - 1));
      EXPECT_EQ(mesh.traffic().bytes("broadcast"), group.rank() == 0 ? (n - 1) * 4 * part : 0);
    }
  }
}

TEST(CollectiveArguments, ThatDoNotFitAreRefusedBeforeAnythingIsSent) {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  if (world.size() == 1) GTEST_SKIP() << "a group of one";
  std::vector<float> a(static_cast<std::size_t>(world.size()) + 1), b(1);
  EXPECT_THROW(world.all_gather(view(b), view(a), "test"), std::logic_error);
  EXPECT_THROW(world.reduce_scatter(view(a), view(b), "test"), std::logic_error);
  EXPECT_THROW(world.start_reduce_scatter(view(a), "test"), std::logic_error);
  EXPECT_THROW(world.broadcast(view(a), world.size(), "test"), std::logic_error);
  const auto many = static_cast<std::int64_t>(world.size());
  const Tensor x = view(a).rows(0, many), y = view(b);
  const Tensor far_x(x.raw(), DType::f32, {many}, Device::cuda), far_y(y.raw(), DType::f32, {1}, Device::cuda);
  const std::vector<std::int64_t> each(a.size() - 1, 1);
  for (const auto& [in, out] : {std::pair(far_y, x), std::pair(y, far_x)})
    EXPECT_THROW(world.all_gather(in, out, "test"), std::logic_error);
  for (const auto& [in, out] : {std::pair(far_x, y), std::pair(x, far_y)})
    EXPECT_THROW(world.reduce_scatter(in, out, "test"), std::logic_error);
  for (const auto& [in, out] : {std::pair(far_x, x), std::pair(x, far_x)})
    EXPECT_THROW(world.all_to_all_v(in, each, out, each, "test"), std::logic_error);
  const Tensor doubles(x.raw(), DType::f64, {many}), one(y.raw(), DType::f64, {1});
  EXPECT_THROW(world.all_reduce(doubles, Reduce::sum, "test"), std::logic_error);
  EXPECT_THROW(world.reduce_scatter(doubles, one, "test"), std::logic_error);
  EXPECT_THROW(world.start_reduce_scatter(doubles, "test"), std::logic_error);
  EXPECT_THROW(Mesh::over(test_session(), {.ranks = world.size(), .tp = world.size() + 1}), std::logic_error);
}

// Added in f32 and rounded once: one by one in bf16, whose numbers are 2 apart there, 256 + 1 + 1 would stay 256.
TEST(CollectivesOfBf16, SumsAreRoundedOnce) {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  const std::int64_t n = 5 * world.size();
  const auto own = [&] {
    return std::vector<Bf16>(static_cast<std::size_t>(n), rounded(world.rank() == 0 ? 256.0f : 1.0f));
  };
  const auto half = [](std::vector<Bf16>& v, std::int64_t first, std::int64_t count) {
    return Tensor(v.data() + first, DType::bf16, {count});
  };
  const Bf16 sum = rounded(256.0f + static_cast<float>(world.size() - 1));
  std::vector<Bf16> x = own();
  world.all_reduce(half(x, 0, n), Reduce::sum, "test.halves");
  for (const Bf16 found : x) EXPECT_EQ(found.bits, sum.bits);
  x = own();
  std::vector<Bf16> part(5);
  world.reduce_scatter(half(x, 0, n), half(part, 0, 5), "test.halves");
  for (const Bf16 found : part) EXPECT_EQ(found.bits, sum.bits);
  x = own();
  world.start_reduce_scatter(half(x, 0, n), "test.halves");
  world.finish_started();
  for (std::int64_t i = 0; i < 5; ++i) EXPECT_EQ(x[static_cast<std::size_t>(5 * world.rank() + i)].bits, sum.bits);
}

TEST(Together, AFailureOfAnyRankIsEveryRanksWithOneMessage) {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  together(world, "test.together", [] {});
  for (int bad = 0; bad < world.size(); ++bad) {
    try {
      together(
          world, "test.together",
          [&] {
            if (world.rank() >= bad) throw std::runtime_error("disk " + std::to_string(world.rank()));
          },
          [](const std::exception&) { return 7; });
      FAIL() << "nothing was thrown";
    } catch (const SharedFailure& failure) {
      EXPECT_EQ(failure.what(),
                (bad ? "rank " + std::to_string(bad) + ": " : std::string()) + "disk " + std::to_string(bad));
      EXPECT_EQ(failure.status(), 7);
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(world.size(), 1) << "a group of one passes exceptions on";
    }
  }
}

}  // namespace
}  // namespace smoe
