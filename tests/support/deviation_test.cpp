#include "tests/support/deviation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/rounding.h"

namespace smoe::test {
namespace {

using Doubles = std::vector<double>;
constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

// ---- what is not a number is far from everything ----

// Every way of comparing, as a question with the widest tolerance: do they agree?
struct Comparison {
  const char* name;
  std::function<bool(const Doubles& found, const Doubles& expected)> agrees;
};
void PrintTo(const Comparison& c, std::ostream* out) { *out << c.name; }

constexpr double anything = std::numeric_limits<double>::max();

double worst_of_single_numbers(const Doubles& found, const Doubles& expected) {
  Worst worst;
  for (std::size_t i = 0; i < expected.size(); ++i) worst.add(deviation(found[i], expected[i]));
  return worst.value;
}

std::vector<Comparison> comparisons() {
  return {
      {"largest_difference", [](const Doubles& f, const Doubles& e) { return largest_difference(f, e) <= anything; }},
      {"deviation", [](const Doubles& f, const Doubles& e) { return deviation(f, e) <= anything; }},
      {"elementwise_deviation",
       [](const Doubles& f, const Doubles& e) { return elementwise_deviation(f, e) <= anything; }},
      {"deviation_of_single_numbers",
       [](const Doubles& f, const Doubles& e) { return worst_of_single_numbers(f, e) <= anything; }},
      {"disagreement", [](const Doubles& f, const Doubles& e) { return disagreement(f, e, anything).empty(); }},
      {"deviation_of_floats",
       [](const Doubles& f, const Doubles& e) {
         const std::vector<float> floats(f.begin(), f.end());
         return deviation(std::span<const float>(floats), e) <= anything;
       }},
      {"largest_of_the_differences",
       [](const Doubles& f, const Doubles& e) {
         Doubles differences;
         for (std::size_t i = 0; i < e.size(); ++i) differences.push_back(f[i] - e[i]);
         return largest(differences) <= anything;
       }},
  };
}

class PlantedNaN : public testing::TestWithParam<Comparison> {};

TEST_P(PlantedNaN, FailsEveryComparison) {
  const Doubles good = {1, -2, 0.5, 3};
  ASSERT_TRUE(GetParam().agrees(good, good));
  for (const double planted : {nan, infinity, -infinity})
    for (std::size_t at = 0; at < good.size(); ++at) {
      Doubles bad = good;
      bad[at] = planted;
      EXPECT_FALSE(GetParam().agrees(bad, good)) << planted << " found at " << at;
      EXPECT_FALSE(GetParam().agrees(good, bad)) << planted << " expected at " << at;
      EXPECT_FALSE(GetParam().agrees(bad, bad)) << planted << " on both sides at " << at;
    }
  const Doubles all(4, nan);
  EXPECT_FALSE(GetParam().agrees(all, good));
  EXPECT_FALSE(GetParam().agrees(good, all));
}

INSTANTIATE_TEST_SUITE_P(Comparisons, PlantedNaN, testing::ValuesIn(comparisons()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Worst, KeepsANaNWhateverFollowsIt) {
  Worst worst;
  worst.add(1e-7, "a");
  worst.add(nan, "b");
  worst.add(2.0, "c");
  EXPECT_EQ(worst.value, infinity);
  EXPECT_EQ(worst.name, "b");
}

// ---- what the measures are ----

TEST(Deviation, IsInUnitsOfTheLargestExpectedNumber) {
  EXPECT_DOUBLE_EQ(deviation(Doubles{1, 2.5, -4}, Doubles{1, 2, -4}), 0.125);
  EXPECT_DOUBLE_EQ(elementwise_deviation(Doubles{1, 2.5, -4}, Doubles{1, 2, -4}), 0.25);
  EXPECT_DOUBLE_EQ(largest_difference(Doubles{1, 2.5, -4}, Doubles{1, 2, -4}), 0.5);
  EXPECT_DOUBLE_EQ(deviation(3.0, -4.0), 1.75);
  EXPECT_EQ(largest(Doubles{1, -7, 2}), 7);
}

TEST(Deviation, WhereZerosAreExpectedNothingElseWillDo) {
  EXPECT_EQ(deviation(Doubles{0, 0}, Doubles{0, 0}), 0);
  EXPECT_EQ(deviation(Doubles{0, 1e-30}, Doubles{0, 0}), infinity);
  EXPECT_EQ(elementwise_deviation(Doubles{1, 1e-30}, Doubles{1, 0}), infinity);
  EXPECT_EQ(deviation(1e-30, 0.0), infinity);
  EXPECT_EQ(deviation(Doubles{}, Doubles{}), 0);
  EXPECT_EQ(deviation(Doubles{0, 3}, Doubles{0, 0}, 4), 0.75);
  EXPECT_EQ(deviation(Doubles{2, 3}, Doubles{2, 2}, 4), 0.5) << "there is another scale";
}

TEST(Deviation, ArraysOfDifferentSizesAreFarApart) {
  for (const auto& [found, expected] :
       {std::pair(Doubles{1}, Doubles{1, 2}), std::pair(Doubles{1, 2}, Doubles{1}), std::pair(Doubles{}, Doubles{1})}) {
    EXPECT_EQ(largest_difference(found, expected), infinity);
    EXPECT_EQ(deviation(found, expected), infinity);
    EXPECT_EQ(elementwise_deviation(found, expected), infinity);
    EXPECT_NE(disagreement(found, expected, anything), "");
  }
}

TEST(Disagreement, NamesTheWorstEntry) {
  EXPECT_EQ(disagreement(Doubles{1, 2 + 1e-7}, Doubles{1, 2}, 1e-6), "");
  EXPECT_NE(disagreement(Doubles{1, 2 + 1e-5}, Doubles{1, 2}, 1e-6), "");
  EXPECT_NE(disagreement(Doubles{1e-30, 0}, Doubles{0, 0}, 1e-6), "");
  EXPECT_EQ(disagreement(Doubles{1.5, 3, 4}, Doubles{1, 2, 4}, 1e-6),
            "entry 1 of 3: found 3, expected 2; deviation 0.25 of the largest entry, allowed 1e-06");
}

TEST(Disagreement, WithoutToleranceAsksForTheSameNumbers) {
  EXPECT_EQ(disagreement(Doubles{nan, infinity, 3}, Doubles{nan, infinity, 3}, 0), "");
  EXPECT_NE(disagreement(Doubles{3 + 1e-15}, Doubles{3}, 0), "");
  EXPECT_NE(disagreement(Doubles{nan, 3}, Doubles{1, 3}, 0), "");
  EXPECT_NE(disagreement(Doubles{1, 3}, Doubles{nan, 3}, 0), "");
  EXPECT_NE(disagreement(Doubles{infinity}, Doubles{-infinity}, 0), "");
}

// ---- rounding ----

// The bound holds for a sum of products made the worst way, one after another, and is not far above what can happen.
TEST(ProductRounding, BoundsSumsOfProducts) {
  double largest_share = 0;
  for (const std::int64_t length : {1, 2, 10, 1000}) {
    const double eps = epsilon_of(DType::f32);
    float sum = 0;
    double exact = 0, magnitude = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      const auto a = static_cast<float>(1 + eps * static_cast<double>(3 * i + 1)),
                 b = static_cast<float>(1 + eps * static_cast<double>(5 * i + 1));
      sum += a * b;
      exact += static_cast<double>(a) * static_cast<double>(b);
      magnitude += static_cast<double>(a) * static_cast<double>(b);
    }
    const double share = difference(sum, exact) / product_rounding(DType::f32, length, magnitude);
    EXPECT_LE(share, 1) << length;
    largest_share = std::max(largest_share, share);
  }
  EXPECT_GT(largest_share, 1e-4);
  EXPECT_EQ(product_rounding(DType::f32, 0, 0), 0);
}

// What is written as bf16 keeps 8 bits.
TEST(ProductRounding, OfANarrowTypeIsThatOfTheResult) {
  EXPECT_EQ(epsilon_of(DType::bf16), 0x1p-7);
  EXPECT_NEAR(product_rounding(DType::bf16, 100, 2.0), 2.0 * 0x1p-7, 3e-5);
  EXPECT_GT(product_rounding(DType::bf16, 100, 2.0), 2.0 * 0x1p-7);
}

}  // namespace
}  // namespace smoe::test
