// Examples that share sequences, examples that each have one, and the same tokens as one sequence without any padding, in
// the reference and in the model: one loss, one balance loss, one gradient.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <ostream>
#include <vector>

#include "tests/model/model_fixture.h"

namespace smoe {
namespace {

using ExampleLengths = std::vector<std::int64_t>;
constexpr std::int64_t room = 16;
const ExampleLengths example_lengths = {5, 9, 3, 12, 1, 7, 16};

struct PaddedCase {
  const char* name;
  reference::ReferenceConfig config;
};
void PrintTo(const PaddedCase& c, std::ostream* out) { *out << c.name; }

std::vector<PaddedCase> padded_cases() {
  reference::ReferenceConfig c;
  c.vocab = 53, c.hidden = 32, c.ffn = 48, c.layers = 2;
  c.heads = 8, c.kv_heads = 2, c.head_dim = 4;
  c.experts = 8, c.top_k = 2;
  c.aux_coef = 0.3, c.z_coef = 0.01;
  std::vector<PaddedCase> all{{"micro_batch_scope", c}};
  c.window = 4;
  all.push_back({"window", c});
  c.window = 0;
  c.scope = reference::BalanceScope::hf;
  all.push_back({"hf_scope", c});
  c.rule = {reference::Score::sigmoid, true, 2.5};
  c.selection_bias = {.5, 0, 0, -.5, 0, .25, 0, 0, 0, .5, 0, 0, -.25, 0, .5, 0};
  all.push_back({"biased_sigmoids", c});
  c.rule = {reference::Score::softmax, false, 1};
  c.top_k = 1;
  all.push_back({"softmax_scores_top_1", c});
  return all;
}

// The examples one behind the other, each a document.
reference::Batch one_sequence(const reference::ReferenceConfig& config) {
  const std::int64_t tokens = std::accumulate(example_lengths.begin(), example_lengths.end(), std::int64_t{0});
  reference::Batch batch = reference::random_batch(config, 1, tokens, 9, false, 0.3);
  for (const std::int64_t length : example_lengths)
    batch.document_start.insert(batch.document_start.end(), static_cast<std::size_t>(length),
                                static_cast<std::int32_t>(batch.document_start.size()));
  return batch;
}

// Each sequence the examples of these numbers, and then padding.
reference::Batch in_sequences(const reference::Batch& whole, const std::vector<std::vector<std::size_t>>& sequences) {
  reference::Batch batch;
  batch.sequences = std::ssize(sequences), batch.sequence_length = room, batch.target_count = whole.target_count;
  for (const auto& examples : sequences) {
    std::int32_t at = 0;
    for (const std::size_t example : examples) {
      const auto first =
                     std::accumulate(example_lengths.begin(), example_lengths.begin() + static_cast<int>(example), 0),
                 length = static_cast<int>(example_lengths[example]);
      const auto append = [&](auto& to, const auto& from) {
        to.insert(to.end(), from.begin() + first, from.begin() + first + length);
      };
      append(batch.tokens, whole.tokens);
      append(batch.targets, whole.targets);
      batch.document_start.insert(batch.document_start.end(), static_cast<std::size_t>(length), at);
      at += length;
    }
    for (; at < room; ++at) {
      batch.tokens.push_back(-1);
      batch.targets.push_back(-100);
      batch.document_start.push_back(at);
    }
  }
  return batch;
}

const std::vector<std::vector<std::size_t>> packed = {{0, 1}, {2, 3, 4}, {5}, {6}},
                                            alone = {{0}, {1}, {2}, {3}, {4}, {5}, {6}},
                                            with_an_empty_one = {{6}, {}, {0, 5, 2, 4}, {1}, {3}};

class Padding : public ::testing::TestWithParam<PaddedCase> {};

// Both hold what is computed in another order of sums, in f32: as MixtralVsReference.
TEST_P(Padding, IsInvisible) {
  const reference::ReferenceConfig& config = GetParam().config;
  const auto weights = float_parameters(config, 5);
  const reference::Batch whole = one_sequence(config);
  reference::ModelSaved<double> saved;
  const auto expected = reference::model_forward(config, weights, whole, saved);
  auto gradients = reference::make_parameters<double>(config);
  reference::model_backward(config, weights, whole, saved, gradients);

  for (const auto& sequences : {packed, alone, with_an_empty_one})
    for (const Positions positions : {Positions::of_document, Positions::of_sequence})
      for (const Recompute recompute : {Recompute::none, Recompute::layer}) {
        RealModel real(config, weights, room);
        const auto found = real.step(in_sequences(whole, sequences), recompute, positions);
        EXPECT_NEAR(found.lm, expected.lm, 2e-6 * std::abs(expected.lm));
        EXPECT_NEAR(found.aux, expected.aux, 2e-6 * std::abs(expected.aux));
        EXPECT_NEAR(found.z, expected.z, 5e-6 * std::abs(expected.z));
        reference::visit_parameters(gradients, [&](const std::string& name, const auto&, const std::vector<double>& g) {
          const double tolerance = name.find(".gate.") != std::string::npos ? 5e-5 : 2e-5;
          EXPECT_EQ(test::disagreement(real.gradient(name), g, tolerance, 0.01), "") << name;
        });
        for (const auto& load : real.balance.values().load)
          EXPECT_NEAR(std::accumulate(load.begin(), load.end(), 0.0), 1, 1e-12);
        EXPECT_EQ(real.saved.statistics.tokens, whole.sequence_length);
      }
}

// Not a number of it is read: neither what a row of it says nor what flows into it.
TEST(PaddingRows, AreZeroInEveryLayer) {
  const auto config = padded_cases().front().config;
  RealModel real(config, float_parameters(config, 5), room);
  const reference::Batch batch = in_sequences(one_sequence(config), alone);
  real.step(batch, Recompute::none, Positions::of_document);
  for (std::size_t l = 0; l < real.saved.layers.size(); ++l)
    for (std::int64_t t = 0; t < std::ssize(batch.tokens); ++t) {
      if (batch.tokens[static_cast<std::size_t>(t)] >= 0) continue;
      for (std::int64_t d = 0; d < config.hidden; ++d)
        ASSERT_EQ(real.saved.inputs[l].f32()[t * config.hidden + d], 0.0f) << "layer " << l << ", token " << t;
      for (std::int64_t k = 0; k < config.top_k; ++k)
        EXPECT_EQ(real.saved.layers[l].router.experts.i32()[t * config.top_k + k], -1);
    }
  const auto rows = real.saved.layers[0].dispatched.assignment_of.dim(0);
  EXPECT_EQ(rows, real.saved.statistics.tokens * config.top_k) << "experts compute padding";
}

TEST(PaddedPositions, CountFromWhereADocumentStarts) {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  const std::vector<std::int32_t> ids = {5, 6, 7, -1, 8, 9, 9, 9}, start = {0, 0, 2, 3, 0, 1, 1, 1};
  const TokenBatch by_document = make_token_batch(*backend, arena, 2, 4, ids, {}, start, 0, Positions::of_document),
                   by_sequence = make_token_batch(*backend, arena, 2, 4, ids, {}, start);
  const auto numbers = [](const Tensor& t) { return std::vector<std::int32_t>(t.i32(), t.i32() + t.elements()); };
  EXPECT_EQ(numbers(by_document.positions), (std::vector<std::int32_t>{0, 1, 0, 0, 0, 0, 1, 2}));
  EXPECT_EQ(numbers(by_sequence.positions), (std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_TRUE(by_document.has_padding());
  EXPECT_EQ(by_document.length_of(0), 3);
  EXPECT_EQ(by_document.length_of(1), 4);
  EXPECT_FALSE(make_token_batch(*backend, arena, 1, 4, std::span(ids).subspan(4)).has_padding());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Padding, ::testing::ValuesIn(padded_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
