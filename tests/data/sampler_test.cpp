#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "data/shards/permutation.h"
#include "data/shards/sampler.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

// The samples of one source in the order of the run, over `steps` steps.
std::vector<std::int64_t> samples_of(const Sampler& sampler, std::int32_t source, std::int64_t steps) {
  std::vector<std::int64_t> samples;
  for (std::int64_t step = 1; step <= steps; ++step) {
    for (const SampleRef& ref : sampler.batch(step)) {
      if (ref.source == source) samples.push_back(ref.sample);
    }
  }
  return samples;
}

TEST(Permutation, IsOneForEverySizeAndKey) {
  for (std::int64_t n = 1; n <= 200; ++n) {
    for (std::uint64_t key = 0; key < 5; ++key) {
      std::vector<bool> seen(static_cast<std::size_t>(n));
      for (std::int64_t x = 0; x < n; ++x) {
        const std::int64_t y = permute(x, n, key);
        ASSERT_TRUE(y >= 0 && y < n);
        ASSERT_FALSE(seen[static_cast<std::size_t>(y)]) << n << " " << key << " " << x;
        seen[static_cast<std::size_t>(y)] = true;
      }
    }
  }
}

TEST(Permutation, StaysInRangeForTheLargestSizes) {
  for (const std::int64_t n : {std::int64_t{1} << 48, std::numeric_limits<std::int64_t>::max()}) {
    for (std::int64_t x = 0; x < 100; ++x) {
      const std::int64_t y = permute(n - 1 - x, n, 9);
      EXPECT_TRUE(y >= 0 && y < n);
    }
  }
}

// All 24 orders of four entries come equally often. 23 degrees of freedom: a fair shuffle exceeds 49.7 once in 1000
// sets of keys, and these keys are fixed.
TEST(Permutation, EveryOrderOfFourIsEquallyLikely) {
  constexpr int keys = 24'000;
  std::map<std::vector<std::int64_t>, int> counts;
  for (std::uint64_t key = 0; key < keys; ++key) {
    std::vector<std::int64_t> order;
    for (std::int64_t x = 0; x < 4; ++x) order.push_back(permute(x, 4, key));
    ++counts[order];
  }
  ASSERT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 49.7);
}

// Where entry x lands, over many keys: uniform over the places. And neighbours do not stay neighbours.
TEST(Permutation, EntriesLandEverywhereEquallyOften) {
  constexpr int n = 50, keys = 20'000;
  for (const std::int64_t x : {0, 1, 24, 48, 49}) {
    std::vector<int> counts(n);
    int neighbours = 0;
    for (std::uint64_t key = 0; key < keys; ++key) {
      const std::int64_t y = permute(x, n, key);
      ++counts[static_cast<std::size_t>(y)];
      neighbours += std::abs(permute((x + 1) % n, n, key) - y) == 1;
    }
    double chi_square = 0;
    for (const int count : counts) chi_square += (count - 400.0) * (count - 400.0) / 400.0;
    EXPECT_LT(chi_square, 85.4) << x;  // 49 degrees of freedom, 1 in 1000
    EXPECT_NEAR(neighbours, keys * 2.0 / n, 5 * std::sqrt(keys * 2.0 / n)) << x;
  }
}

// A long shuffle in blocks of the run: each block takes evenly from the whole corpus.
TEST(SamplerShuffle, EveryStretchCoversTheCorpusEvenly) {
  constexpr std::int64_t n = 64'000, stretch = 6'400, bins = 64;
  const Sampler sampler({{n, 1.0}}, 5, true, stretch);
  for (std::int64_t step = 1; step <= n / stretch; ++step) {
    std::vector<double> counts(bins);
    for (const SampleRef& ref : sampler.batch(step)) counts[static_cast<std::size_t>(ref.sample / (n / bins))] += 1;
    double chi_square = 0;
    for (const double count : counts) chi_square += (count - 100) * (count - 100) / 100;
    EXPECT_LT(chi_square, 103.4) << "step " << step;  // 63 degrees of freedom, 1 in 1000
    EXPECT_GT(chi_square, 25) << "step " << step;     // and not suspiciously even
  }
}

TEST(SamplerEpochs, EveryEpochVisitsEverySampleOnce) {
  for (const bool shuffle : {true, false}) {
    // 37 samples in batches of 8: epochs end inside batches.
    const Sampler sampler({{37, 1.0}}, 3, shuffle, 8);
    const std::vector<std::int64_t> samples = samples_of(sampler, 0, 37);
    ASSERT_EQ(samples.size(), 8u * 37u);
    std::vector<std::vector<std::int64_t>> epochs;
    for (int epoch = 0; epoch < 8; ++epoch) {
      std::vector<std::int64_t> visited(samples.begin() + epoch * 37, samples.begin() + (epoch + 1) * 37);
      epochs.push_back(visited);
      std::sort(visited.begin(), visited.end());
      std::vector<std::int64_t> all(37);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(visited, all) << "epoch " << epoch;
      if (!shuffle) {
        EXPECT_EQ(epochs.back(), all);
      }
    }
    if (shuffle) {
      EXPECT_NE(epochs[0], epochs[1]);
    }
  }
}

TEST(SamplerEpochs, SourcesHaveTheirOwn) {
  const std::vector<SourceSize> sources{{5, 1.0}, {11, 3.0}, {2, 0.5}};
  const Sampler sampler(sources, 3, true, 6);
  for (std::int32_t source = 0; source < 3; ++source) {
    const std::vector<std::int64_t> samples = samples_of(sampler, source, 60);
    const auto n = static_cast<std::size_t>(sources[static_cast<std::size_t>(source)].samples);
    ASSERT_GE(samples.size(), 3 * n);
    for (std::size_t first = 0; first + n <= samples.size(); first += n) {
      std::vector<std::int64_t> visited(samples.begin() + static_cast<std::ptrdiff_t>(first),
                                        samples.begin() + static_cast<std::ptrdiff_t>(first + n));
      std::sort(visited.begin(), visited.end());
      EXPECT_EQ(visited.front(), 0);
      EXPECT_EQ(visited.back(), static_cast<std::int64_t>(n) - 1);
      EXPECT_EQ(std::adjacent_find(visited.begin(), visited.end()), visited.end());
    }
  }
}

TEST(SamplerEpochs, SourceSmallerThanABatchComesSeveralTimes) {
  const Sampler sampler({{3, 1.0}}, 3, true, 7);
  std::vector<int> counts(3);
  for (std::int64_t step = 1; step <= 3; ++step) {
    for (const SampleRef& ref : sampler.batch(step)) ++counts[static_cast<std::size_t>(ref.sample)];
  }
  EXPECT_EQ(counts, (std::vector<int>{7, 7, 7}));
}

class SamplerShares : public testing::TestWithParam<std::vector<double>> {};

TEST_P(SamplerShares, StayWithinTheStatedBound) {
  const std::vector<double>& weights = GetParam();
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<SourceSize> sources;
  std::size_t active = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    sources.push_back({static_cast<std::int64_t>(100 + i), weights[i]});
    active += weights[i] > 0;
  }
  const double bound = std::ceil(std::log2(static_cast<double>(active))) / 2 + 1e-6;
  const Sampler sampler(sources, 1, true, 16);
  std::vector<double> drawn(weights.size());
  double n = 0;
  for (std::int64_t step = 1; step <= 2000; ++step) {
    for (const SampleRef& ref : sampler.batch(step)) {
      drawn[static_cast<std::size_t>(ref.source)] += 1;
      n += 1;
      for (std::size_t i = 0; i < weights.size(); ++i) ASSERT_LE(std::abs(drawn[i] - n * weights[i] / sum), bound) << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, SamplerShares,
                         testing::Values(std::vector<double>{1}, std::vector<double>{1, 1},
                                         std::vector<double>{0.7, 0.3}, std::vector<double>{5, 0, 3},
                                         std::vector<double>{0, 0, 1}, std::vector<double>{1, 2, 3, 4, 5, 6, 7},
                                         std::vector<double>{1e-3, 1, 1e-3}, std::vector<double>(33, 0.1),
                                         std::vector<double>{1e300, 3e300},
                                         std::vector<double>{1e-300, 3e-300, 2e-300}));

TEST(SamplerBlend, HoldsItsSharesFarIntoARun) {
  // In file order, and with more samples than are ever drawn: a sample's number is how many its source gave before.
  const std::int64_t samples = std::int64_t{1} << 60, step = 1'000'000'000'000;
  const Sampler sampler({{samples, 0.7}, {samples, 0.2}, {samples, 0.1}}, 1, false, 1024);
  const double before = static_cast<double>(step - 1) * 1024;
  constexpr std::array shares{0.7, 0.2, 0.1};
  std::array<int, 3> met{};
  for (const SampleRef& ref : sampler.batch(step)) {
    const auto source = static_cast<std::size_t>(ref.source);
    if (met[source]++ == 0) {
      EXPECT_NEAR(static_cast<double>(ref.sample) / before, shares[source], 1e-12);
    }
  }
  EXPECT_TRUE(met[0] > 0 && met[1] > 0 && met[2] > 0);
}

// Far steps cost what near ones do, and answer the same whoever asked for what before.
TEST(SamplerPurity, AnyOrderOfStepsGivesTheSameBatches) {
  const std::vector<SourceSize> sources{{50, 2.0}, {31, 1.0}};
  const Sampler forward(sources, 8, true, 12), backward(sources, 8, true, 12);
  std::map<std::int64_t, std::vector<SampleRef>> batches;
  for (std::int64_t step = 1; step <= 40; ++step) batches[step] = forward.batch(step);
  batches[1'000'000'007] = forward.batch(1'000'000'007);
  for (auto it = batches.rbegin(); it != batches.rend(); ++it) EXPECT_EQ(backward.batch(it->first), it->second);
}

TEST(SamplerPurity, OneEntryIsThatOfTheBatch) {
  const Sampler sampler({{50, 2.0}, {31, 1.0}}, 8, true, 12);
  for (std::int64_t step = 1; step <= 20; ++step) {
    const std::vector<SampleRef> batch = sampler.batch(step);
    for (std::int64_t i = 0; i < 12; ++i) EXPECT_EQ(sampler.at(step, i), batch[static_cast<std::size_t>(i)]);
  }
}

// The stream of sequences is one: another batch size cuts it elsewhere.
TEST(SamplerPurity, BatchSizeOnlyCutsTheStream) {
  const std::vector<SourceSize> sources{{50, 2.0}, {31, 1.0}};
  const Sampler small(sources, 8, true, 4), large(sources, 8, true, 12);
  for (std::int64_t step = 1; step <= 20; ++step) {
    std::vector<SampleRef> joined;
    for (std::int64_t part = 0; part < 3; ++part) {
      const std::vector<SampleRef> batch = small.batch((step - 1) * 3 + part + 1);
      joined.insert(joined.end(), batch.begin(), batch.end());
    }
    EXPECT_EQ(joined, large.batch(step));
  }
}

// These orders are part of what a checkpoint means: a run resumed by a later build must read the same samples.
TEST(SamplerPurity, OrderIsFrozen) {
  const Sampler sampler({{1000, 0.7}, {500, 0.3}}, 42, true, 6);
  EXPECT_EQ(sampler.batch(1), (std::vector<SampleRef>{{0, 279}, {1, 314}, {0, 721}, {0, 898}, {1, 421}, {0, 312}}));
  EXPECT_EQ(sampler.batch(1000), (std::vector<SampleRef>{{1, 76}, {0, 267}, {0, 500}, {0, 473}, {1, 292}, {0, 663}}));
}

TEST(SamplerSeeds, Differ) {
  const Sampler one({{1000, 1.0}}, 1, true, 100), two({{1000, 1.0}}, 2, true, 100);
  const std::vector<SampleRef> a = one.batch(1), b = two.batch(1);
  int equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  EXPECT_LE(equal, 5);
}

TEST(SamplerSeeds, SourcesOfEqualSizeAreShuffledDifferently) {
  const Sampler sampler({{1000, 1.0}, {1000, 1.0}}, 1, true, 200);
  const std::vector<std::int64_t> a = samples_of(sampler, 0, 1), b = samples_of(sampler, 1, 1);
  ASSERT_EQ(a.size(), b.size());
  int equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  EXPECT_LE(equal, 5);
}

TEST(SamplerBadInput, SizesAndWeights) {
  using test::expect_refused;
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  expect_refused([] { Sampler({}, 1, true, 4); }, {"nothing to sample"});
  expect_refused([] { Sampler({{10, 0.0}}, 1, true, 4); }, {"nothing to sample"});
  expect_refused([] { Sampler({{10, 1.0}, {0, 1.0}}, 1, true, 4); }, {"source 1", "0 samples"});
  expect_refused([] { Sampler({{10, -1.0}}, 1, true, 4); }, {"source 0", "-1"});
  expect_refused([&] { Sampler({{10, nan}}, 1, true, 4); }, {"source 0", "nan"});
  expect_refused([&] { Sampler({{10, infinity}}, 1, true, 4); }, {"source 0", "inf"});
  expect_refused([] { Sampler({{10, 1.0}}, 1, true, 0); }, {"batch of 0"});
}

TEST(SamplerBadInput, StepsAndPositions) {
  const Sampler sampler({{10, 1.0}}, 1, true, 4);
  EXPECT_THROW(sampler.batch(0), std::logic_error);
  EXPECT_THROW(sampler.batch(-1), std::logic_error);
  EXPECT_THROW(sampler.batch(std::numeric_limits<std::int64_t>::max()), std::logic_error);
  EXPECT_THROW(sampler.at(1, 4), std::logic_error);
  EXPECT_THROW(sampler.at(1, -1), std::logic_error);
}

}  // namespace
}  // namespace smoe
