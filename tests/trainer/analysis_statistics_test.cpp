// The statistics of a routing analysis against values counted by hand, and against slow ways to the same number.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/trainer/analysis_fixture.h"
#include "trainer/analysis/excerpts.h"
#include "trainer/analysis/expert_cache.h"
#include "trainer/analysis/repetition.h"
#include "trainer/analysis/shares.h"
#include "trainer/analysis/top_tokens.h"

namespace smoe {
namespace {

using test::divide;
using test::table_of;

using Numbers = std::vector<double>;

// Each token of `tokens` draws K different ones of E experts; experts before others are likelier.
Assignments drawn_table(std::uint32_t seed, std::size_t experts, std::size_t per_token, std::size_t sequences,
                        std::size_t length) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids;
  std::vector<ExpertId> choices;
  for (std::size_t t = 0; t < sequences * length; ++t) {
    ids.push_back(static_cast<std::int32_t>(random() % 7));
    std::vector<ExpertId> chosen;
    while (chosen.size() < per_token) {
      const auto e = static_cast<ExpertId>(std::min(random() % experts, random() % experts));
      if (std::find(chosen.begin(), chosen.end(), e) == chosen.end()) chosen.push_back(e);
    }
    choices.insert(choices.end(), chosen.begin(), chosen.end());
  }
  return table_of(experts, per_token, length, ids, choices);
}

// ---- shares ----

TEST(AnalysisShares, OfEachChoiceAndOfAllTogether) {
  Assignments table = table_of(4, 2, 2, {5, 6, 7, 8, 9, 9}, {0, 1, 0, 2, 3, 0, 1, 0, 2, 1, 2, 1});
  divide(table, {2, 1});
  const Shares first = shares_of(table, table.sources[0], 0), second = shares_of(table, table.sources[1], 0);
  EXPECT_EQ(first.choices, (std::vector<Numbers>{{0.5, 0.25, 0, 0.25}, {0.5, 0.25, 0.25, 0}}));
  EXPECT_EQ(first.assignments, (Numbers{0.5, 0.25, 0.125, 0.125}));
  EXPECT_EQ(second.choices, (std::vector<Numbers>{{0, 0, 1, 0}, {0, 1, 0, 0}}));
  EXPECT_EQ(second.assignments, (Numbers{0, 0.5, 0.5, 0}));
}

// ---- repetition ----

TEST(AnalysisRepetition, CountsPairsInsideASequenceAndADocument) {
  // Two sequences of four; the second has a document that opens at its third token.
  Assignments table = table_of(4, 2, 4, {1, 2, 3, 4, 5, 6, 7, 8},
                               {0, 1, 0, 2, 3, 1, 2, 3,    // pairs: same first; nothing in common; 3 in common
                                2, 3, 2, 3, 2, 3, 1, 0});  // same first; (apart: another document); nothing in common
  table.follows[6] = 0;
  const Repetition found = repetition_of(table, table.sources[0], 0);
  EXPECT_EQ(found.pairs, 5u);
  EXPECT_DOUBLE_EQ(found.first_choice.rate, 2.0 / 5);
  EXPECT_DOUBLE_EQ(found.top_k.rate, 3.0 / 5);
  // Shares of first choices: 2/8 of expert 0, 1/8 of 1, 4/8 of 2, 1/8 of 3.
  EXPECT_DOUBLE_EQ(found.first_choice.independent, (4.0 + 1 + 16 + 1) / 64);
  // Sets: 01 twice, 02 once, 13 once, 23 four times; apart are 01 and 23, and 02 and 13: 2 (2 * 4 + 1 * 1) of 64.
  EXPECT_DOUBLE_EQ(found.top_k.independent, 1 - 18.0 / 64);
  // Ratio 2/5 of sequences with 1 of 3 and 1 of 2: deviations -1/5 and 1/5.
  EXPECT_NEAR(found.first_choice.standard_error, std::sqrt(2.0 / 1 * (0.04 + 0.04)) / 5, 1e-15);
}

TEST(AnalysisRepetition, WithoutAPairHasNoRate) {
  Assignments table = table_of(3, 1, 2, {1, 2}, {0, 0});
  table.follows[1] = 0;
  const Repetition found = repetition_of(table, table.sources[0], 0);
  EXPECT_EQ(found.pairs, 0u);
  EXPECT_TRUE(std::isnan(found.first_choice.rate));
  EXPECT_TRUE(std::isnan(found.top_k.standard_error));
  EXPECT_DOUBLE_EQ(found.first_choice.independent, 1);
}

TEST(AnalysisRepetition, OfOneSequenceHasNoStandardError) {
  const Assignments table = table_of(3, 1, 3, {1, 2, 3}, {0, 0, 1});
  const Repetition found = repetition_of(table, table.sources[0], 0);
  EXPECT_DOUBLE_EQ(found.first_choice.rate, 0.5);
  EXPECT_TRUE(std::isnan(found.first_choice.standard_error));
}

TEST(AnalysisRepetition, EvenBaselinesAreThePapers) {
  EXPECT_DOUBLE_EQ(uniform_first_choice(8), 0.125);
  EXPECT_DOUBLE_EQ(uniform_top_k(8, 2), 13.0 / 28);
  EXPECT_DOUBLE_EQ(uniform_top_k(8, 1), 1.0 / 8);
  EXPECT_DOUBLE_EQ(uniform_top_k(6, 3), 1 - 1.0 / 20);
  EXPECT_DOUBLE_EQ(uniform_top_k(6, 4), 1);
  EXPECT_DOUBLE_EQ(uniform_top_k(2, 2), 1);
}

// Both ways to the meeting probability, by subsets where sets are many and by pairs where they are few, against every pair of
// tokens.
TEST(AnalysisRepetition, StrangersMeetAsOftenAsPairsOfTokensDo) {
  for (const auto& [experts, per_token] :
       std::vector<std::pair<std::size_t, std::size_t>>{{4, 2}, {8, 2}, {9, 3}, {6, 1}, {7, 6}}) {
    const Assignments table = drawn_table(3, experts, per_token, 4, 40);
    double first = 0, any = 0;
    std::set<std::set<ExpertId>> sets;
    for (std::size_t a = 0; a < table.tokens(); ++a) {
      const auto of_a = table.chosen(0, a);
      sets.emplace(of_a.begin(), of_a.end());
      for (std::size_t b = 0; b < table.tokens(); ++b) {
        const auto of_b = table.chosen(0, b);
        first += of_a[0] == of_b[0];
        any += std::find_first_of(of_a.begin(), of_a.end(), of_b.begin(), of_b.end()) != of_a.end();
      }
    }
    const double pairs = static_cast<double>(table.tokens() * table.tokens());
    const Repetition found = repetition_of(table, table.sources[0], 0);
    EXPECT_NEAR(found.first_choice.independent, first / pairs, 1e-14) << experts << ", " << per_token;
    EXPECT_NEAR(found.top_k.independent, any / pairs, 1e-14) << experts << ", " << per_token;
    const std::size_t subsets = std::size_t{1} << per_token;
    EXPECT_EQ(sets.size() > subsets, experts != 7) << "the ways are not both taken";
  }
}

// Independent tokens repeat as often as strangers meet, whatever the load: there is nothing above it to explain.
TEST(AnalysisRepetition, OfIndependentTokensIsThatOfStrangers) {
  const Assignments table = drawn_table(11, 8, 2, 100, 200);
  const Repetition found = repetition_of(table, table.sources[0], 0);
  for (const RepetitionRate& rate : {found.first_choice, found.top_k}) {
    EXPECT_GT(rate.standard_error, 0.001);
    EXPECT_LT(std::abs(rate.rate - rate.independent), 4 * rate.standard_error);
  }
  EXPECT_GT(found.first_choice.rate, 1.2 * uniform_first_choice(8))
      << "the load is too even to tell the baselines apart";
  EXPECT_GT(found.top_k.rate, 1.1 * uniform_top_k(8, 2));
}

// ---- expert cache ----

// The same cache, written as one would build it: a list of what is in it and when each was used.
double hit_rate_of_list(const Assignments& table, const AnalysedSource& source, std::size_t size) {
  double hits = 0;
  std::map<ExpertId, std::size_t> used_at;
  std::size_t clock = 0;
  for (std::size_t i = 0; i < source.tokens; ++i) {
    if (i % table.sequence_length == 0) used_at.clear();
    const auto chosen = table.chosen(0, source.first + i);
    for (const ExpertId e : chosen) hits += used_at.contains(e);
    for (auto e = chosen.rbegin(); e != chosen.rend(); ++e) used_at[*e] = ++clock;
    while (used_at.size() > size)
      used_at.erase(std::min_element(used_at.begin(), used_at.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; }));
  }
  return hits / static_cast<double>(source.tokens * table.experts_per_token);
}

TEST(ExpertCache, ByHand) {
  // Tokens of one sequence: 01, 02, 01, 23. With room for 2: 0 is there at the second and the third token. With 3, 1 is too at
  // the third, and 2 at the fourth.
  const Assignments table = table_of(4, 2, 4, {1, 2, 3, 4}, {0, 1, 0, 2, 0, 1, 2, 3});
  const CacheRates found = cache_rates(table, table.sources[0], 0);
  EXPECT_EQ(found.lru, (Numbers{2.0 / 8, 4.0 / 8, 4.0 / 8}));
  EXPECT_EQ(found.fixed, (Numbers{5.0 / 8, 7.0 / 8, 1}));
}

TEST(ExpertCache, OfEverySizeIsThatOfAList) {
  for (const std::size_t per_token : {1, 2, 3}) {
    Assignments table = drawn_table(7, 6, per_token, 6, 30);
    divide(table, {2, 4});
    for (const AnalysedSource& source : table.sources) {
      const CacheRates found = cache_rates(table, source, 0);
      ASSERT_EQ(found.lru.size(), 6 - per_token + 1);
      for (std::size_t i = 0; i < found.lru.size(); ++i)
        EXPECT_DOUBLE_EQ(found.lru[i], hit_rate_of_list(table, source, per_token + i)) << per_token << ", " << i;
    }
  }
}

TEST(ExpertCache, OfAnEvenRouterIsWhatFits) {
  std::mt19937 random(5);
  std::vector<ExpertId> choices;
  for (int t = 0; t < 40000; ++t) {
    const unsigned a = random() % 8, b = (a + 1 + random() % 7) % 8;
    choices.insert(choices.end(), {static_cast<ExpertId>(a), static_cast<ExpertId>(b)});
  }
  const Assignments table = table_of(8, 2, 40000, std::vector<std::int32_t>(40000, 3), choices);
  const CacheRates found = cache_rates(table, table.sources[0], 0);
  for (std::size_t i = 0; i < found.lru.size(); ++i) {
    EXPECT_NEAR(found.lru[i], static_cast<double>(2 + i) / 8, 0.01);
    EXPECT_NEAR(found.fixed[i], static_cast<double>(2 + i) / 8, 0.01);
  }
}

// ---- tokens of experts ----

TEST(TopTokens, SpecificOnesGoNowhereElseAndFrequentOnesAreMany) {
  // Token 3: 4 of 4 to expert 0. Token 4: 6 of 8 to expert 0, 2 to expert 1. Token 5: once, to expert 1.
  const Assignments table =
      table_of(2, 1, 13, {3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1});
  const auto found = top_tokens(table, 0, {.listed = 2, .least_occurrences = 2});
  ASSERT_EQ(found.size(), 2u);
  const TokenOfExpert three{3, 4, 4, 1}, four{4, 6, 8, 0.75}, four_of_one{4, 2, 8, 0.25}, five{5, 1, 1, 1};
  EXPECT_EQ(found[0].specific, (std::vector{three})) << "token 4 goes to expert 0 less than the average token";
  EXPECT_EQ(found[0].frequent, (std::vector{four, three}));
  EXPECT_EQ(found[1].specific, (std::vector{four_of_one})) << "token 5 occurs once";
  EXPECT_EQ(found[1].frequent, (std::vector{four_of_one, five}));
  EXPECT_EQ(top_tokens(table, 0, {.listed = 1, .least_occurrences = 1})[1].specific, (std::vector{five}));
}

// ---- excerpts ----

TEST(AnalysisExcerpt, BeginsWithADocumentThatHasRoom) {
  Assignments table = table_of(3, 1, 6, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {0, 1, 2, 0, 1, 2, 2, 2, 2, 1, 1, 1});
  const auto ids = [&](std::size_t length) { return excerpt_of(table, table.sources[0], length).ids; };
  EXPECT_EQ(ids(3), (std::vector<std::int32_t>{0, 1, 2})) << "no document opens inside a sequence";
  table.follows[4] = table.follows[8] = 0;
  EXPECT_EQ(ids(3), (std::vector<std::int32_t>{8, 9, 10})) << "behind token 4 there are only two";
  EXPECT_EQ(ids(2), (std::vector<std::int32_t>{4, 5}));
  EXPECT_EQ(ids(100), (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(excerpt_of(table, table.sources[0], 3).first_choice, (std::vector<std::vector<ExpertId>>{{2, 1, 1}}));
  divide(table, {1, 1});
  EXPECT_EQ(excerpt_of(table, table.sources[1], 3).ids, (std::vector<std::int32_t>{8, 9, 10}));
}

}  // namespace
}  // namespace smoe
