#include "parallel/parameter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/philox.h"
#include "parallel/initial_values.h"
#include "parallel/normals.h"
#include "parallel/shards.h"
#include "tests/support/deviation.h"

namespace smoe {
namespace {

TEST(Philox, KnownAnswersOfTheRandom123Distribution) {
  // kat_vectors of Random123: philox4x32-10 with all-zero, all-one and digits-of-pi inputs.
  EXPECT_EQ(philox(0, 0, 0), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull),
            (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The definition, with the C library in double.
double normal_by_definition(std::uint64_t key, std::int64_t i) {
  const auto bits = philox(key, static_cast<std::uint64_t>(i / 4));
  const auto pair = static_cast<std::size_t>(i % 4 / 2 * 2);
  const double radius = std::sqrt(-2 * std::log(uniform_open(bits[pair]))),
               angle = 2 * std::numbers::pi * (bits[pair + 1] >> 8) * 0x1p-24;
  return radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

TEST(Normals, AreBoxAndMullersOfThePhiloxStream) {
  for (const std::uint64_t key : {1ull, 0x9e3779b97f4a7c15ull}) {
    std::vector<float> numbers(400'000);
    standard_normals(key, 0, 400'000, numbers.data());
    std::vector<double> expected;
    for (std::int64_t i = 0; i < 400'000; ++i) expected.push_back(normal_by_definition(key, i));
    EXPECT_LT(test::largest_difference(numbers, expected),
              2e-6);  // 4 roundings of a float at 6, the largest of so many numbers
  }
}

TEST(Normals, AnyPieceOfTheStreamIsThePieceOfTheWhole) {
  std::vector<float> whole(1000);
  standard_normals(5, 0, 1000, whole.data());
  for (std::int64_t first : {0, 1, 3, 4, 126, 127, 128, 129, 500})
    for (std::int64_t count : {0, 1, 2, 5, 127, 128, 300}) {
      std::vector<float> piece(static_cast<std::size_t>(count));
      standard_normals(5, first, count, piece.data());
      EXPECT_TRUE(std::equal(piece.begin(), piece.end(), whole.begin() + first)) << first << " " << count;
    }
}

// Beyond 2^32 blocks the counter's second word counts.
TEST(Normals, OfLargeTensorsAreBoxAndMullersToo) {
  const std::int64_t first = (std::int64_t{1} << 34) - 3;
  float numbers[8];
  standard_normals(9, first, 8, numbers);
  for (std::int64_t i = 0; i < 8; ++i) EXPECT_NEAR(numbers[i], normal_by_definition(9, first + i), 2e-6);
}

class Parameters : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
  Arena arena{*backend};
  const Mesh mesh = Mesh::single();
};

TEST_F(Parameters, NormalsHaveTheAskedForMoments) {
  ParameterSet set;
  Parameter& p = set.add({.name = "w", .shape = {300, 401}, .initial_std = 0.02f});
  set.allocate(*backend, arena, mesh, false);
  set.initialize(*backend, 7);
  double sum = 0, squares = 0, fourth = 0;
  const std::int64_t n = p.value.elements();
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = p.value.f32()[i] / 0.02;
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  const double root = std::sqrt(static_cast<double>(n));
  EXPECT_LT(std::abs(sum / root), 4.0);
  EXPECT_LT(std::abs(squares / static_cast<double>(n) - 1) * root / std::sqrt(2.0), 4.0);
  EXPECT_NEAR(fourth / static_cast<double>(n), 3.0, 0.15);
}

TEST_F(Parameters, ASliceHoldsTheSameNumbersAsTheWhole) {
  constexpr std::int64_t rows = 13, columns = 7;
  std::vector<float> whole(rows * columns);
  fill_initial_values(3, {.name = "w", .shape = {rows, columns}, .slice = {rows, columns}, .initial_std = 1.0f},
                      whole.data());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c + 3 <= columns; ++c) {
      std::vector<float> slice(3);
      fill_initial_values(
          3, {.name = "w", .shape = {rows, columns}, .first = {r, c}, .slice = {1, 3}, .initial_std = 1.0f},
          slice.data());
      for (std::int64_t i = 0; i < 3; ++i)
        EXPECT_EQ(slice[static_cast<std::size_t>(i)], whole[static_cast<std::size_t>(r * columns + c + i)]);
    }
}

TEST_F(Parameters, NamesAndSeedsGiveDifferentNumbers) {
  const auto first = [&](std::uint64_t seed, const char* name) {
    float x[4];
    fill_initial_values(seed, {.name = name, .shape = {4}, .slice = {4}, .initial_std = 1.0f, .decays = false}, x);
    return std::vector<float>(x, x + 4);
  };
  EXPECT_EQ(first(1, "a"), first(1, "a"));
  EXPECT_NE(first(1, "a"), first(2, "a"));
  EXPECT_NE(first(1, "a"), first(1, "b"));
}

TEST_F(Parameters, AStackIsContiguousAndGroupsAreApart) {
  ParameterSet set;
  set.add({.name = "norm", .shape = {5}, .initial_mean = 1, .decays = false});
  set.add({.name = "zero", .shape = {2, 5}, .initial_std = 0});
  const Parameter& q = set.add({.name = "q", .shape = {3, 5}, .split = Split::tp, .initial_std = 1});
  set.add({.name = "k", .shape = {2, 5}, .split = Split::tp, .initial_std = 1, .follows_previous = true});
  set.add({.name = "e", .shape = {1, 5}, .split = Split::ep, .initial_std = 1});
  set.allocate(*backend, arena, mesh, true);
  set.initialize(*backend, 1);
  const ParameterStack stack{&q, {5, 5}};
  EXPECT_EQ(set.find("k")->value.f32(), stack.value().f32() + 15);
  EXPECT_EQ(set.find("k")->gradient.f32(), stack.gradient().f32() + 15);
  ASSERT_EQ(set.flat_buffers().size(), 3u);
  for (float x : std::vector<float>(set.find("norm")->value.f32(), set.find("norm")->value.f32() + 5))
    EXPECT_EQ(x, 1.0f);
  for (float x : std::vector<float>(set.find("zero")->value.f32(), set.find("zero")->value.f32() + 10))
    EXPECT_EQ(x, 0.0f);
}

TEST_F(Parameters, BuffersAreApartBySplitTypeAndTraining) {
  ParameterSet set;
  const Parameter& norm = set.add({.name = "norm", .shape = {5}});
  const Parameter& q = set.add({.name = "q", .shape = {3, 5}, .split = Split::tp});
  const Parameter& half = set.add({.name = "half", .shape = {3, 5}, .split = Split::tp, .type = DType::bf16});
  const Parameter& frozen = set.add({.name = "frozen", .shape = {3, 5}, .split = Split::tp, .trainable = false});
  const Parameter& o = set.add({.name = "o", .shape = {5, 3}, .split = Split::tp});
  const Parameter& expert = set.add({.name = "expert", .shape = {40, 5}, .split = Split::ep});
  const Mesh rank = Mesh::placed({.ranks = 4, .tp = 2}, 3);
  set.lay_out(rank);
  ASSERT_EQ(set.flat_buffers().size(), 5u);
  const std::vector<const Parameter*> in_order = {&q, &frozen, &half, &norm, &expert};
  for (std::size_t f = 0; f < in_order.size(); ++f) {
    EXPECT_EQ(in_order[f]->flat, f) << in_order[f]->name;
    EXPECT_TRUE(set.flat_buffers()[f].holds(*in_order[f])) << in_order[f]->name;
  }
  EXPECT_EQ(o.flat, q.flat);
  EXPECT_EQ(o.place, 16) << "on the next cache line";
  // Padded to lines of 16 floats, or 32 halves, for each rank that holds replicas: 2 along dp, 4 in the world and along edp.
  const std::vector<std::int64_t> elements = {32, 32, 64, 64, 256};
  std::uint64_t values = 0, gradients = 0;
  for (std::size_t f = 0; f < elements.size(); ++f) {
    const FlatBuffer& flat = set.flat_buffers()[f];
    EXPECT_EQ(flat.elements, elements[f]) << f;
    values += static_cast<std::uint64_t>(elements[f]) * (flat.type == DType::bf16 ? 2 : 4);
    if (flat.trainable) gradients += static_cast<std::uint64_t>(elements[f]) * 4;
  }
  EXPECT_EQ(set.bytes(false), values);
  EXPECT_EQ(set.bytes(true), values + gradients);
}

TEST_F(Parameters, AFrozenOneHasAValueAndNothingElse) {
  ParameterSet set;
  set.add({.name = "w1", .shape = {300, 7}, .initial_std = 1});
  Parameter& frozen = set.add({.name = "frozen", .shape = {300, 7}, .initial_std = 1, .trainable = false});
  Parameter& behind =
      set.add({.name = "behind", .shape = {20, 7}, .initial_std = 1, .trainable = false, .follows_previous = true});
  set.allocate(*backend, arena, mesh, true);
  set.initialize(*backend, 1);
  EXPECT_NE(frozen.value.f32()[0], 0.0f);
  EXPECT_TRUE(frozen.gradient.empty());
  const ParameterStack stack{&frozen, {320, 7}};
  EXPECT_EQ(stack.value().f32() + 300 * 7, behind.value.f32());
  EXPECT_TRUE(stack.gradient().empty());
  EXPECT_EQ(arena.high_water_bytes(), set.bytes(true));
  EXPECT_EQ(set.bytes(true) - set.bytes(false), 4 * 2112) << "a gradient of 2100 floats, padded to lines";
}

TEST_F(Parameters, WhatIsReadAsOneMatrixIsTrainedAsOne) {
  ParameterSet set;
  set.add({.name = "q", .shape = {3, 5}});
  set.add({.name = "k", .shape = {2, 5}, .follows_previous = true}).trainable = false;
  EXPECT_THROW(set.lay_out(mesh), std::logic_error);
}

// Of what is frozen there is nothing to reduce; every rank has an equal run of it to write.
TEST_F(Parameters, AFrozenBufferHasNoBucketsAndIsOwnedInEqualRuns) {
  std::vector<int> owners(3 * 50);
  for (int rank = 0; rank < 4; ++rank) {
    const Mesh placed = Mesh::placed({.ranks = 4}, rank);
    ParameterSet set;
    const Parameter& frozen = set.add({.name = "frozen", .shape = {3, 50}, .trainable = false});
    const Parameter& trained = set.add({.name = "trained", .shape = {3, 50}});
    set.lay_out(placed);
    const Shards shards(set, placed, 64);
    EXPECT_EQ(shards.buckets().size(), 3u);
    for (const Bucket& bucket : shards.buckets()) EXPECT_EQ(bucket.flat, trained.flat);
    EXPECT_EQ(shards.shard_elements(frozen.flat), 48);
    shards.for_each_owned(frozen, [&](std::int64_t first, const OwnedRun& run) {
      EXPECT_EQ(run.place, frozen.place + first);
      EXPECT_EQ(run.shard, run.place - rank * 48);
      for (std::int64_t i = first; i < first + run.size; ++i) ++owners[static_cast<std::size_t>(i)];
    });
  }
  for (const int count : owners) EXPECT_EQ(count, 1);
}

TEST_F(Parameters, RefusesARepeatedNameAndAddingLate) {
  ParameterSet set;
  set.add({.name = "w", .shape = {2}});
  EXPECT_THROW(set.add({.name = "w", .shape = {2}}), std::logic_error);
  set.allocate(*backend, arena, mesh, false);
  EXPECT_THROW(set.add({.name = "v", .shape = {2}}), std::logic_error);
}

}  // namespace
}  // namespace smoe
