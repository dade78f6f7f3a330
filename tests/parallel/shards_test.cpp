// Who owns what: over all layouts of up to eight ranks, each asked in one process.
#include "parallel/shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/parallel/parameter_fixture.h"

namespace smoe {
namespace {

// What one rank of a layout holds and owns.
struct Rank {
  Rank(const Layout& layout, int rank, std::int64_t bucket_elements) : mesh(Mesh::placed(layout, rank)) {
    test::declare_parameters(parameters, mesh);
    parameters.lay_out(mesh);
    shards = std::make_unique<Shards>(parameters, mesh, bucket_elements);
  }
  const FlatBuffer& buffer(std::size_t flat) const { return parameters.flat_buffers()[flat]; }
  Axis group(std::size_t flat) const { return replica_axis(buffer(flat).split); }

  Mesh mesh;
  ParameterSet parameters;
  std::unique_ptr<Shards> shards;
};

class ShardsOfEveryLayout : public ::testing::Test {
 protected:
  // visit(the ranks of a layout, with buckets of some size)
  template <class Visit>
  void for_each_layout(const Visit& visit) {
    for (const int count : {1, 2, 4, 8})
      for (const Layout& layout : layouts_of(count))
        for (const std::int64_t bucket_elements : {1, 200, 1000, 1 << 20}) {
          SCOPED_TRACE(layout.to_string() + " of " + std::to_string(count) + " ranks, buckets of " +
                       std::to_string(bucket_elements));
          std::vector<std::unique_ptr<Rank>> ranks;
          for (int r = 0; r < count; ++r) ranks.push_back(std::make_unique<Rank>(layout, r, bucket_elements));
          visit(ranks);
          if (HasFatalFailure()) return;
        }
  }
  // The ranks that hold replicas of a rank's buffer: the ones whose parameters there are the same slices.
  static std::vector<Rank*> replicas_of(const std::vector<std::unique_ptr<Rank>>& ranks, const Rank& of,
                                        std::size_t flat) {
    const auto slices = [flat](const Rank& rank) {
      std::vector<std::pair<std::string, std::array<std::int64_t, 2>>> all;
      for (const Parameter& p : rank.parameters)
        if (p.flat == flat) all.emplace_back(p.name, p.first);
      return all;
    };
    std::vector<Rank*> same;
    for (const auto& rank : ranks)
      if (slices(*rank) == slices(of)) same.push_back(rank.get());
    return same;
  }
};

TEST_F(ShardsOfEveryLayout, ReplicasOwnEachElementOfABufferOnce) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks)
      for (std::size_t flat = 0; flat < rank->parameters.flat_buffers().size(); ++flat) {
        const auto replicas = replicas_of(ranks, *rank, flat);
        ASSERT_EQ(static_cast<int>(replicas.size()), rank->mesh.size(rank->group(flat)));
        std::vector<int> owners(static_cast<std::size_t>(rank->buffer(flat).elements));
        for (const Rank* replica : replicas)
          for (const Bucket& bucket : replica->shards->buckets())
            if (bucket.flat == flat)
              for (std::int64_t i = bucket.owned.place; i < bucket.owned.end(); ++i)
                ++owners.at(static_cast<std::size_t>(i));
        const int expected = rank->buffer(flat).trainable ? 1 : 0;  // what is frozen is reduced by nobody
        ASSERT_EQ(std::count(owners.begin(), owners.end(), expected), static_cast<std::ptrdiff_t>(owners.size()))
            << "buffer " << flat;
      }
  });
}

TEST_F(ShardsOfEveryLayout, BucketsCoverABufferOnceAndAShardIsTheirOwnedPartsInOrder) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks)
      for (std::size_t flat = 0; flat < rank->parameters.flat_buffers().size(); ++flat) {
        const std::int64_t size = rank->mesh.size(rank->group(flat)), place = rank->mesh.rank(rank->group(flat));
        ASSERT_EQ(rank->shards->shard_elements(flat) * size, rank->buffer(flat).elements);
        if (!rank->buffer(flat).trainable) continue;
        std::vector<Bucket> buckets;
        for (const Bucket& bucket : rank->shards->buckets())
          if (bucket.flat == flat) buckets.push_back(bucket);
        std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) { return a.begin < b.begin; });
        ASSERT_TRUE(size > 1 || buckets.size() == 1);
        std::int64_t reached = 0, in_shard = 0;
        for (const Bucket& bucket : buckets) {
          ASSERT_EQ(bucket.begin, reached);
          ASSERT_EQ(bucket.owned.shard, in_shard);
          ASSERT_EQ(bucket.owned.size * size, bucket.size);
          ASSERT_EQ(bucket.owned.place, bucket.begin + place * bucket.owned.size);
          ASSERT_EQ(bucket.owned.size % 16, 0) << "parts are whole cache lines";
          reached += bucket.size;
          in_shard += bucket.owned.size;
        }
        ASSERT_EQ(reached, rank->buffer(flat).elements);
        ASSERT_EQ(in_shard, rank->shards->shard_elements(flat));
      }
  });
}

// A bucket may be sent when the first of the parameters that reach into it is complete, and backward completes the last first.
TEST_F(ShardsOfEveryLayout, BucketsBecomeCompleteInTheirOrder) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks) {
      std::size_t before = rank->parameters.size();
      for (const Bucket& bucket : rank->shards->buckets()) {
        std::size_t first = rank->parameters.size();
        for (const Parameter& p : rank->parameters)
          if (p.flat == bucket.flat && p.place < bucket.begin + bucket.size &&
              p.place + p.slice.elements() > bucket.begin)
            first = std::min(first, p.index);
        ASSERT_EQ(bucket.first_parameter, first);
        ASSERT_LE(first, before);
        before = first;
      }
    }
  });
}

// Collectives must meet: every rank has the same buckets, in the same order.
TEST_F(ShardsOfEveryLayout, AllRanksHaveTheSameBucketsInTheSameOrder) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks) {
      const auto &mine = rank->shards->buckets(), &first = ranks.front()->shards->buckets();
      ASSERT_EQ(mine.size(), first.size());
      for (std::size_t i = 0; i < mine.size(); ++i) {
        ASSERT_EQ(mine[i].flat, first[i].flat);
        ASSERT_EQ(mine[i].begin, first[i].begin);
        ASSERT_EQ(mine[i].size, first[i].size);
      }
    }
  });
}

// Frozen parameters too: they are written to checkpoints like any.
TEST_F(ShardsOfEveryLayout, ForEachOwnedVisitsEachElementOfAParameterOnOneReplica) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks)
      for (const Parameter& p : rank->parameters) {
        std::vector<int> visits(static_cast<std::size_t>(p.slice.elements()));
        for (Rank* replica : replicas_of(ranks, *rank, p.flat)) {
          std::int64_t behind = 0;
          replica->shards->for_each_owned(*replica->parameters.find(p.name),
                                          [&](std::int64_t first, const OwnedRun& run) {
                                            ASSERT_GT(run.size, 0);
                                            ASSERT_GE(first, behind) << "runs are in order";
                                            ASSERT_EQ(run.place, p.place + first);
                                            behind = first + run.size;
                                            for (std::int64_t i = first; i < behind; ++i)
                                              ++visits.at(static_cast<std::size_t>(i));
                                          });
        }
        ASSERT_EQ(std::count(visits.begin(), visits.end(), 1), p.slice.elements()) << p.name;
      }
  });
}

TEST_F(ShardsOfEveryLayout, NoTwoElementsShareAPlaceInAShard) {
  for_each_layout([](const auto& ranks) {
    for (const auto& rank : ranks) {
      std::vector<std::vector<int>> taken;
      for (std::size_t flat = 0; flat < rank->parameters.flat_buffers().size(); ++flat)
        taken.emplace_back(static_cast<std::size_t>(rank->shards->shard_elements(flat)));
      for (const Parameter& p : rank->parameters)
        rank->shards->for_each_owned(p, [&](std::int64_t, const OwnedRun& run) {
          for (std::int64_t i = run.shard; i < run.shard + run.size; ++i)
            ASSERT_EQ(taken[p.flat].at(static_cast<std::size_t>(i))++, 0) << p.name;
        });
    }
  });
}

// Buckets are of about the asked-for size, and never so small that a rank has less than a cache line.
TEST_F(ShardsOfEveryLayout, BucketsHaveTheSizeThatIsAskedFor) {
  const Layout layout{.ranks = 4};
  for (const std::int64_t wanted : {1, 64, 200, 1000}) {
    const Rank rank(layout, 2, wanted);
    for (const Bucket& bucket : rank.shards->buckets()) {
      EXPECT_LE(bucket.size, std::max<std::int64_t>(wanted, 64));
      if (bucket.begin > 0) {
        EXPECT_GT(bucket.size + 64, wanted);
      }
    }
  }
}

}  // namespace
}  // namespace smoe
