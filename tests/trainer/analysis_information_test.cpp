// Mutual information and its permutation tests: values by hand, tiny cases whose permutations can all be listed, independent
// and planted routers.
#include "trainer/analysis/information.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "tests/trainer/analysis_fixture.h"

namespace smoe {
namespace {

using test::divide;
using test::table_of;

// By the definition, sum p(x,y) log2 (p(x,y) / p(x) p(y)), of pairs one by one.
double bits_between(const std::vector<int>& x, const std::vector<int>& y) {
  double bits = 0;
  const double n = static_cast<double>(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    double with_x = 0, with_y = 0, with_both = 0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      with_x += x[j] == x[i];
      with_y += y[j] == y[i];
      with_both += x[j] == x[i] && y[j] == y[i];
    }
    bits += std::log2(with_both * n / (with_x * with_y)) / n;
  }
  return bits;
}

// Four sequences of two tokens, two in each domain.
Assignments two_domains() {
  Assignments table = table_of(3, 1, 2, {1, 2, 1, 2, 3, 3, 4, 4}, {0, 0, 0, 1, 2, 2, 2, 1});
  divide(table, {2, 2});
  return table;
}

TEST(DomainInformation, IsThatOfTheDefinition) {
  const Information found = domain_information(two_domains(), {}).at(0).first_choice;
  EXPECT_NEAR(found.bits, bits_between({0, 0, 0, 0, 1, 1, 1, 1}, {0, 0, 0, 1, 2, 2, 2, 1}), 1e-12);
  EXPECT_NEAR(found.bits, 0.75, 1e-12) << "expert 1 says nothing, the others all";
  const double third = 3.0 / 8;
  EXPECT_NEAR(found.entropy, -2 * third * std::log2(third) + 0.5, 1e-12);
  EXPECT_NEAR(found.of_entropy, found.corrected / found.entropy, 1e-15);
  EXPECT_NEAR(found.corrected, found.bits - found.permuted, 1e-15);
}

TEST(DomainInformation, CountsAllChoicesOfAToken) {
  Assignments table = table_of(3, 2, 1, {1, 1, 1, 1}, {0, 1, 1, 0, 2, 1, 1, 2});
  divide(table, {2, 2});
  const LayerInformation found = domain_information(table, {}).at(0);
  EXPECT_NEAR(found.assignments.bits, bits_between({0, 0, 0, 0, 1, 1, 1, 1}, {0, 1, 1, 0, 2, 1, 1, 2}), 1e-12);
  EXPECT_NEAR(found.first_choice.bits, bits_between({0, 0, 1, 1}, {0, 1, 2, 1}), 1e-12);
}

// The six ways to divide four sequences into two and two, each as likely: mean and p of many draws come near theirs.
TEST(DomainInformation, PermutesDomainsOfSequences) {
  const std::vector<std::vector<int>> of_sequences{{0, 0}, {0, 1}, {2, 2}, {2, 1}};
  std::vector<int> domains{0, 0, 1, 1};
  const double observed = bits_between({0, 0, 0, 0, 1, 1, 1, 1}, {0, 0, 0, 1, 2, 2, 2, 1});
  double sum = 0, as_high = 0, ways = 0;
  do {
    std::vector<int> x, y;
    for (std::size_t s = 0; s < 4; ++s)
      for (const int expert : of_sequences[s]) x.push_back(domains[s]), y.push_back(expert);
    const double bits = bits_between(x, y);
    sum += bits;
    as_high += bits >= observed - 1e-12;
    ++ways;
  } while (std::next_permutation(domains.begin(), domains.end()));
  ASSERT_EQ(ways, 6);
  ASSERT_EQ(as_high, 2);
  const Information found = domain_information(two_domains(), {.seed = 4, .permutations = 20000}).at(0).first_choice;
  EXPECT_NEAR(found.permuted, sum / 6, 0.01);
  EXPECT_NEAR(found.p, 2.0 / 6, 0.015);
}

TEST(DomainInformation, IsNotThereOfOneDomain) {
  const Assignments table = table_of(2, 1, 2, {1, 2, 3, 4}, {0, 1, 0, 1});
  EXPECT_TRUE(domain_information(table, {}).empty());
  EXPECT_EQ(token_information(table, {}).size(), 1u);
}

TEST(Permutation, IsTheSeeds) {
  const Assignments table = two_domains();
  EXPECT_EQ(domain_information(table, {.seed = 3}), domain_information(table, {.seed = 3}));
  EXPECT_NE(domain_information(table, {.seed = 3}), domain_information(table, {.seed = 4}));
  EXPECT_EQ(token_information(table, {.seed = 3}), token_information(table, {.seed = 3}));
  EXPECT_NE(token_information(table, {.seed = 3}), token_information(table, {.seed = 4}));
}

TEST(Permutation, WithoutAnyThereIsNoTest) {
  for (const Information& found : {domain_information(two_domains(), {.permutations = 0}).at(0).first_choice,
                                   token_information(two_domains(), {.permutations = 0}).at(0).assignments}) {
    EXPECT_GT(found.bits, 0);
    EXPECT_TRUE(std::isnan(found.permuted));
    EXPECT_TRUE(std::isnan(found.corrected));
    EXPECT_TRUE(std::isnan(found.p));
  }
}

TEST(TokenInformation, IsThatOfTheDefinition) {
  const LayerInformation found = token_information(two_domains(), {}).at(0);
  EXPECT_NEAR(found.first_choice.bits, bits_between({1, 2, 1, 2, 3, 3, 4, 4}, {0, 0, 0, 1, 2, 2, 2, 1}), 1e-12);
  EXPECT_NEAR(found.assignments.bits, found.first_choice.bits, 1e-12) << "there is one choice";
}

// Tokens 1, 1, 2 and choices 01, 10, 21: all orders of the three.
TEST(TokenInformation, PermutesWhatTokensChose) {
  const std::vector<std::vector<int>> chosen{{0, 1}, {1, 0}, {2, 1}};
  std::vector<std::size_t> order{0, 1, 2};
  double first = 0, all = 0;
  do {
    std::vector<int> x1, y1, x, y;
    for (std::size_t t = 0; t < 3; ++t) {
      const int id = t < 2 ? 1 : 2;
      x1.push_back(id), y1.push_back(chosen[order[t]][0]);
      for (const int expert : chosen[order[t]]) x.push_back(id), y.push_back(expert);
    }
    first += bits_between(x1, y1) / 6;
    all += bits_between(x, y) / 6;
  } while (std::next_permutation(order.begin(), order.end()));
  const Assignments table = table_of(3, 2, 3, {1, 1, 2}, {0, 1, 1, 0, 2, 1});
  const LayerInformation found = token_information(table, {.seed = 2, .permutations = 20000}).at(0);
  EXPECT_NEAR(found.first_choice.permuted, first, 0.01);
  EXPECT_NEAR(found.assignments.permuted, all, 0.01);
}

// A router of the token alone says all that there is to say; one of nothing, nothing, once what chance gives is taken away.
TEST(TokenInformation, OfAPlantedAndOfAnIndependentRouter) {
  std::mt19937 random(9);
  std::vector<std::int32_t> ids;
  std::vector<ExpertId> planted, independent;
  for (int t = 0; t < 4000; ++t) {
    ids.push_back(static_cast<std::int32_t>(random() % 200));
    planted.push_back(static_cast<ExpertId>(ids.back() % 8));
    independent.push_back(static_cast<ExpertId>(random() % 8));
  }
  const Information all = token_information(table_of(8, 1, 40, ids, planted), {}).at(0).first_choice;
  EXPECT_NEAR(all.bits, all.entropy, 1e-12);
  EXPECT_NEAR(all.entropy, 3, 0.01);
  EXPECT_DOUBLE_EQ(all.p, 1.0 / 201);
  const Information none = token_information(table_of(8, 1, 40, ids, independent), {}).at(0).first_choice;
  EXPECT_GT(none.bits, 0.2) << "as counted, chance looks like information";
  EXPECT_NEAR(none.corrected, 0, 0.02);
  EXPECT_GT(none.p, 0.01);
}

// Sequences that each keep to an expert of their own, whatever their domain: tokens are far from independent, and a test that
// permuted tokens would find domains in them.
TEST(DomainInformation, DependenceInsideASequenceIsNoEvidence) {
  int small = 0;
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    std::vector<ExpertId> choices;
    for (int s = 0; s < 24; ++s) choices.insert(choices.end(), 10, static_cast<ExpertId>(random() % 4));
    Assignments table = table_of(4, 1, 10, std::vector<std::int32_t>(240, 1), choices);
    divide(table, {8, 8, 8});
    small += domain_information(table, {.seed = seed, .permutations = 99}).at(0).first_choice.p <= 0.1;
  }
  EXPECT_LE(small, 10) << "of 40 some four are expected";
}

}  // namespace
}  // namespace smoe
