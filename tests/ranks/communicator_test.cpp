// Every collective over every group of every layout, against sums taken by hand.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/nccl.h"
#include "parallel/comm/agreement.h"
#include "parallel/cores.h"
#include "parallel/mesh.h"
#include "tests/ranks/placed_numbers.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

// Numbers that tell the rank and the place, and that floats hold exactly.
float value(int rank, std::int64_t i) { return static_cast<float>(1000 * (rank + 1) + i % 977); }

std::vector<float> values(int rank, std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[static_cast<std::size_t>(i)] = value(rank, i);
  return v;
}

Tensor view(std::vector<float>& v) { return {v.data(), DType::f32, {static_cast<std::int64_t>(v.size())}}; }

// The world ranks of this rank's group along an axis, found by a collective itself.
std::vector<int> world_ranks(Communicator& group) {
  std::vector<std::int32_t> own{test_session().rank()}, all(static_cast<std::size_t>(group.size()));
  group.all_gather(host_tensor(own), host_tensor(all), "test.members");
  return {all.begin(), all.end()};
}

// Size of the tensors, and where they lie: on the host; on the ranks' GPUs by way of the host; on them by NCCL.
struct Tried {
  std::int64_t size;
  Device device = Device::cpu;
  Transport transport = Transport::mpi;
};

std::string name_of(const testing::TestParamInfo<Tried>& info) {
  const auto& [size, device, transport] = info.param;
  return std::to_string(size) + (device == Device::cpu ? "" : transport == Transport::mpi ? "_staged" : "_nccl");
}

// On all ranks, or on none. Where NCCL lets ranks share one, none needs its own.
bool each_rank_has_a_gpu_and_nccl() {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  std::vector<std::int32_t> lacks{(ranks_on_own_gpu(world) > 1 && own_device_rank().may_share_gpu == 0) ||
                                  !nccl_missing().empty()};
  world.all_reduce(host_tensor(lacks), Reduce::max, "test.lacks");
  return lacks[0] == 0;
}

class Collectives : public ::testing::TestWithParam<Tried> {
 protected:
  void SetUp() override {
    if (GetParam().device == Device::cpu) return;
    if (const std::string missing = cuda_missing(); !missing.empty()) GTEST_SKIP() << missing;
    if (GetParam().transport == Transport::nccl && !each_rank_has_a_gpu_and_nccl())
      GTEST_SKIP() << "ranks share a GPU, or have no NCCL";
  }

  template <class Check>
  void over_every_group(const Check& check) {
    const Placement where(GetParam().device);
    for (const Layout& layout : layouts_of(test_session().size())) {
      UsedMesh mesh(Mesh::over(test_session(), layout, {GetParam().device, GetParam().transport}), where);
      for (const Axis axis : all_axes) {
        if (mesh->size(axis) == 1 && where.backend()) continue;  // no caller hands a device's tensors to itself
        SCOPED_TRACE(layout.to_string() + " axis " + smoe::name_of(axis));
        check(mesh->group(axis), world_ranks(mesh->group(axis)), where);
      }
    }
  }
};

TEST_P(Collectives, SumAndGather) {
  const std::int64_t n = GetParam().size;
  over_every_group([&](Communicator& group, const std::vector<int>& ranks, const Placement& where) {
    const auto size = static_cast<std::int64_t>(ranks.size());
    Numbers<float> x(where, values(test_session().rank(), n));
    group.all_reduce(x.tensor(), Reduce::sum, "test.sum");
    Numbers<std::int32_t> largest(where, std::vector<std::int32_t>{test_session().rank()});
    group.all_reduce(largest.tensor(), Reduce::max, "test.max");
    EXPECT_EQ(largest.read()[0], ranks.back());
    std::vector<double> doubles(static_cast<std::size_t>(n), 0.5 + test_session().rank());
    group.all_reduce(doubles, Reduce::sum, "test.doubles");
    for (std::int64_t i = 0; i < n; ++i) {
      float sum = 0;
      double total = 0;
      for (const int r : ranks) sum += value(r, i), total += 0.5 + r;
      ASSERT_EQ(doubles[static_cast<std::size_t>(i)], total) << i;
      if (i == 0) x.read();
      ASSERT_EQ(x.numbers()[static_cast<std::size_t>(i)], sum) << i;
    }

    Numbers<float> own(where, values(test_session().rank(), n)), all(where, n * size);
    group.all_gather(own.tensor(), all.tensor(), "test.gather");
    std::vector<float> with_own(static_cast<std::size_t>(n * size));
    std::copy_n(own.numbers().begin(), n, with_own.begin() + group.rank() * n);
    Numbers<float> in_place(where, with_own);
    group.finish(group.start_all_gather(in_place.tensor().rows(group.rank() * n, n), in_place.tensor(), "test.gather"));
    EXPECT_EQ(all.read(), in_place.read());
    for (std::int64_t q = 0; q < size; ++q)
      for (std::int64_t i = 0; i < n; ++i)
        ASSERT_EQ(all.numbers()[static_cast<std::size_t>(q * n + i)], value(ranks[static_cast<std::size_t>(q)], i));
  });
}

TEST_P(Collectives, ReduceScatterAtOnceAndInTheBackground) {
  const std::int64_t n = GetParam().size;
  over_every_group([&](Communicator& group, const std::vector<int>& ranks, const Placement& where) {
    const auto size = static_cast<std::int64_t>(ranks.size());
    const auto expect_sum = [&](const float* part, std::int64_t shift) {
      for (std::int64_t i = 0; i < n; ++i) {
        float sum = 0;
        for (const int r : ranks) sum += value(r, group.rank() * n + i) + static_cast<float>(shift);
        ASSERT_EQ(part[i], sum) << i;
      }
    };
    Numbers<float> in(where, values(test_session().rank(), n * size)), out(where, n);
    group.reduce_scatter(in.tensor(), out.tensor(), "test.scatter");
    expect_sum(out.read().data(), 0);
    EXPECT_EQ(in.read(), values(test_session().rank(), n * size)) << "only the part that is asked for may change";
    group.reduce_scatter(in.tensor(), in.tensor().rows(group.rank() * n, n), "test.scatter");
    expect_sum(in.read().data() + group.rank() * n, 0);

    // More are started than may be on their way, with another collective in between.
    std::vector<std::unique_ptr<Numbers<float>>> several;
    for (std::int64_t s = 0; s < 5; ++s) {
      std::vector<float> shifted = values(test_session().rank(), n * size);
      for (float& x : shifted) x += static_cast<float>(s);
      several.push_back(std::make_unique<Numbers<float>>(where, shifted));
    }
    for (auto& x : several) {
      group.start_reduce_scatter(x->tensor(), "test.started");
      group.barrier("test.between");
    }
    group.finish_started();
    for (std::int64_t s = 0; s < 5; ++s)
      expect_sum(several[static_cast<std::size_t>(s)]->read().data() + group.rank() * n, s);
  });
}

TEST_P(Collectives, RowsGoWhereTheyAreSent) {
  const std::int64_t width = GetParam().size;
  over_every_group([&](Communicator& group, const std::vector<int>& ranks, const Placement& where) {
    // Rank a sends (a + 2 b) % 4 rows to b: some pairs exchange nothing.
    const auto rows = [](int from, int to) { return static_cast<std::int64_t>((from + 2 * to) % 4); };
    std::vector<std::int64_t> outgoing, incoming;
    for (int q = 0; q < group.size(); ++q) {
      outgoing.push_back(rows(group.rank(), q));
      incoming.push_back(rows(q, group.rank()));
    }
    const std::int64_t sent = std::accumulate(outgoing.begin(), outgoing.end(), std::int64_t{0});
    const std::int64_t received = std::accumulate(incoming.begin(), incoming.end(), std::int64_t{0});
    Numbers<float> in(where, values(test_session().rank(), sent * width)), out(where, received * width + 1);
    group.all_to_all_v(in.tensor({sent, width}), outgoing, out.tensor({received, width}), incoming, "test.rows");
    out.read();
    std::size_t at = 0;
    for (int q = 0; q < group.size(); ++q) {
      std::int64_t before = 0;
      for (int b = 0; b < group.rank(); ++b) before += rows(q, b);
      for (std::int64_t i = 0; i < rows(q, group.rank()) * width; ++i)
        ASSERT_EQ(out.numbers()[at++], value(ranks[static_cast<std::size_t>(q)], before * width + i));
    }
  });
}

TEST_P(Collectives, Broadcast) {
  over_every_group([&](Communicator& group, const std::vector<int>& ranks, const Placement& where) {
    for (int root = 0; root < group.size(); ++root) {
      Numbers<float> x(where, values(test_session().rank(), GetParam().size));
      group.broadcast(x.tensor(), root, "test.broadcast");
      ASSERT_EQ(x.read(), values(ranks[static_cast<std::size_t>(root)], GetParam().size));
    }
  });
}

// Added in f32 and rounded once: one by one in bf16, whose numbers are 2 apart there, 256 + 1 + 1 would stay 256.
TEST_P(Collectives, SumsOfBf16AreRoundedOnce) {
  const std::int64_t n = GetParam().size;
  over_every_group([&](Communicator& group, const std::vector<int>&, const Placement& where) {
    const std::int64_t all = n * group.size();
    const std::vector<Bf16> own(static_cast<std::size_t>(all), rounded(group.rank() == 0 ? 256.0f : 1.0f));
    const Bf16 sum = rounded(256.0f + static_cast<float>(group.size() - 1));
    const auto expect_sums = [&](Numbers<Bf16>& found, std::int64_t first, std::int64_t count) {
      found.read();
      for (std::int64_t i = first; i < first + count; ++i)
        ASSERT_EQ(found.numbers()[static_cast<std::size_t>(i)].bits, sum.bits) << i;
    };
    Numbers<Bf16> x(where, own), y(where, own), z(where, own), part(where, n);
    group.all_reduce(x.tensor(), Reduce::sum, "test.halves");
    expect_sums(x, 0, all);
    group.reduce_scatter(y.tensor(), part.tensor(), "test.halves");
    expect_sums(part, 0, n);
    group.start_reduce_scatter(z.tensor(), "test.halves");
    group.finish_started();
    expect_sums(z, group.rank() * n, n);
    Numbers<Bf16> largest(where, own);
    group.all_reduce(largest.tensor(), Reduce::max, "test.halves");
    EXPECT_EQ(largest.read()[0].bits, rounded(256.0f).bits);
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

INSTANTIATE_TEST_SUITE_P(Sizes, Collectives, ::testing::Values(Tried{1}, Tried{3}, Tried{1500}, Tried{70001}), name_of);
INSTANTIATE_TEST_SUITE_P(OnGpus, Collectives,
                         ::testing::Values(Tried{1, Device::cuda}, Tried{1500, Device::cuda},
                                           Tried{1, Device::cuda, Transport::nccl},
                                           Tried{1500, Device::cuda, Transport::nccl},
                                           Tried{70001, Device::cuda, Transport::nccl}),
                         name_of);

TEST(OnGpus, AreJoinedByNcclWhereEachRankHasOneAndBothAreThere) {
  if (const std::string missing = cuda_missing(); !missing.empty()) GTEST_SKIP() << missing;
  const Placement where(Device::cuda);
  UsedMesh mesh(Mesh::over(test_session(), {.ranks = test_session().size()}, {.kind = Device::cuda}), where);
  if (mesh->size(Axis::world) == 1) GTEST_SKIP() << "one rank";
  EXPECT_EQ(mesh->transport().starts_with("NCCL "), each_rank_has_a_gpu_and_nccl()) << mesh->transport();
}

TEST_P(Collectives, SendWhatTheFormulasSay) {
  const Placement where(GetParam().device);
  for (const Layout& layout : layouts_of(test_session().size())) {
    UsedMesh mesh(Mesh::over(test_session(), layout, {GetParam().device, GetParam().transport}), where);
    for (const Axis axis : all_axes) {
      if (mesh->size(axis) == 1 && where.backend()) continue;
      SCOPED_TRACE(layout.to_string() + " axis " + smoe::name_of(axis));
      Communicator& group = mesh->group(axis);
      const std::int64_t n = group.size(), part = 2048;
      Numbers<float> own(where, part), all(where, part * n);
      mesh->traffic().reset();
      group.all_gather(own.tensor(), all.tensor(), "gather");
      group.reduce_scatter(all.tensor(), own.tensor(), "scatter");
      group.start_reduce_scatter(all.tensor(), "started");
      group.finish_started();
      group.all_reduce(all.tensor(), Reduce::sum, "reduce");
      group.broadcast(own.tensor(), 0, "broadcast");
      const std::int64_t whole = 4 * part * n;
      EXPECT_EQ(mesh->traffic().bytes("gather"), whole / n * (n - 1));
      EXPECT_EQ(mesh->traffic().bytes("scatter"), whole / n * (n - 1));
      EXPECT_EQ(mesh->traffic().bytes("started"), whole / n * (n - 1));
      EXPECT_EQ(mesh->traffic().bytes("reduce"), 2 * whole / n * (n - 1));
      EXPECT_EQ(mesh->traffic().bytes("broadcast"), group.rank() == 0 ? (n - 1) * 4 * part : 0);
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
