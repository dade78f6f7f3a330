// The whole model against the oracle in double: losses and every gradient.
#include <gtest/gtest.h>

#include <limits>
#include <ostream>

#include "tests/model/model_fixture.h"

namespace smoe {
namespace {

struct Case {
  const char* name;
  reference::ReferenceConfig config;
  std::int64_t sequences, length;
  bool documents;
  double masked;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

reference::ReferenceConfig shape(int hidden, int ffn, int layers, int heads, int kv_heads, int head_dim, int experts,
                                 int top_k) {
  reference::ReferenceConfig c;
  c.vocab = 53;
  c.hidden = hidden, c.ffn = ffn, c.layers = layers;
  c.heads = heads, c.kv_heads = kv_heads, c.head_dim = head_dim;
  c.experts = experts, c.top_k = top_k;
  c.aux_coef = 0.3, c.z_coef = 0.01;
  return c;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  auto gqa = shape(32, 48, 2, 8, 2, 4, 8, 2);
  all.push_back({"gqa_documents_masked", gqa, 3, 17, true, 0.3});
  gqa.scope = reference::BalanceScope::sequence;
  all.push_back({"sequence_balance", gqa, 4, 12, true, 0.1});
  gqa.aux_coefs = {0.4, 0.1};
  all.push_back({"sequence_balance_by_layer", gqa, 4, 12, true, 0.1});
  gqa.aux_coefs.clear();
  gqa.scope = reference::BalanceScope::hf;
  all.push_back({"hf_balance", gqa, 2, 19, false, 0.0});
  all.push_back({"top_1", shape(24, 20, 3, 3, 3, 8, 5, 1), 2, 11, false, 0.2});
  auto by_layer = shape(32, 48, 3, 8, 2, 4, 8, 2);
  by_layer.aux_coefs = {0.4, 0, 0.1};
  all.push_back({"balance_by_layer", by_layer, 3, 17, true, 0.3});
  auto window = shape(30, 37, 2, 6, 2, 10, 5, 3);
  window.window = 5;
  all.push_back({"window_odd_sizes_top_3", window, 2, 23, true, 0.2});
  all.push_back({"every_expert_chosen", shape(16, 24, 2, 4, 1, 4, 4, 4), 1, 9, false, 0.0});
  all.push_back({"one_expert", shape(16, 24, 1, 2, 1, 8, 1, 1), 2, 8, false, 0.0});
  all.push_back({"one_token", shape(16, 24, 2, 2, 2, 8, 4, 2), 1, 1, false, 0.0});
  all.push_back({"long_sequences_cross_tiles", shape(64, 96, 2, 8, 2, 16, 8, 2), 2, 300, true, 0.1});
  const auto routed = [&](reference::RoutingRule rule, int top_k) {
    auto c = shape(32, 48, 2, 8, 2, 4, 8, top_k);
    c.rule = rule;
    c.selection_bias = {.5, 0, 0, -.5, 0, .25, 0, 0, 0, .5, 0, 0, -.25, 0, .5, 0};
    c.capacity_factor = 0.8;
    c.jitter = 0.125;
    return c;
  };
  using reference::Score;
  all.push_back(
      {"renormalised_scaled_biased_capacity_jitter", routed({Score::softmax, true, 2.5}, 2), 3, 16, true, 0.2});
  all.push_back({"softmax_scores_biased_capacity_jitter", routed({Score::softmax, false, 1}, 1), 2, 19, true, 0.2});
  all.push_back({"sigmoid_scores_biased_capacity_jitter", routed({Score::sigmoid, false, 0.5}, 3), 2, 17, false, 0.2});
  all.push_back(
      {"renormalised_sigmoids_biased_capacity_jitter", routed({Score::sigmoid, true, 2.5}, 2), 3, 12, true, 0.2});
  auto fine_tuned = shape(32, 48, 2, 8, 2, 4, 8, 2);
  fine_tuned.label_smoothing = 0.2;
  fine_tuned.neftune_alpha = 5;
  all.push_back({"smoothed_labels_noisy_embeddings", fine_tuned, 3, 17, true, 0.3});
  all.push_back({"smoothed_labels_noisy_whole_sequences", fine_tuned, 2, 12, false, 0.1});
  auto ranked = routed({Score::softmax, true, 1}, 2);
  ranked.capacity_by_probability = true;
  all.push_back({"capacity_by_probability", ranked, 3, 16, true, 0.2});
  return all;
}

class MixtralVsReference : public ::testing::TestWithParam<Case> {};

TEST_P(MixtralVsReference, LossesAndEveryGradient) {
  const Case& c = GetParam();
  const auto weights = float_parameters(c.config, 5);
  const auto batch = reference::random_batch(c.config, c.sequences, c.length, 9, c.documents, c.masked);
  reference::ModelSaved<double> saved;
  const auto expected = reference::model_forward(c.config, weights, batch, saved);
  auto gradients = reference::make_parameters<double>(c.config);
  reference::model_backward(c.config, weights, batch, saved, gradients);

  RealModel real(c.config, weights, c.length);
  const auto found = real.step(batch);
  EXPECT_NEAR(found.lm, expected.lm, 2e-6 * std::abs(expected.lm));
  EXPECT_NEAR(found.aux, expected.aux, 2e-6 * std::abs(expected.aux));
  const double e = c.config.label_smoothing;
  EXPECT_NEAR(found.uniform, e > 0 ? expected.uniform : 0, 2e-6 * std::abs(expected.uniform));
  const double expected_weighted =
      expected.total - (1 - e) * expected.lm - e * expected.uniform - c.config.z_coef * expected.z;
  EXPECT_NEAR(found.weighted_aux, expected_weighted, 2e-6 * std::abs(expected_weighted) + 1e-14 * expected.total);
  EXPECT_NEAR(found.z, expected.z, 5e-6 * std::abs(expected.z));
  reference::visit_parameters(gradients, [&](const std::string& name, const auto&, const std::vector<double>& g) {
    // The router's gradient is what is left of larger terms that cancel (of the weights, which sum to one), hence its
    // larger share of rounding; both bounds are far below what any missing or doubled term would do.
    // Queries and keys of one token have none: what is left of terms that cancel is held against a hundredth.
    const double tolerance = name.find(".gate.") != std::string::npos ? 5e-5 : 2e-5;
    EXPECT_EQ(test::disagreement(real.gradient(name), g, tolerance, 0.01), "") << name;
  });
}

TEST_P(MixtralVsReference, RecomputedLayersGiveTheSameBits) {
  const Case& c = GetParam();
  const auto weights = float_parameters(c.config, 5);
  const auto batch = reference::random_batch(c.config, c.sequences, c.length, 9, c.documents, c.masked);
  RealModel kept(c.config, weights, c.length), again(c.config, weights, c.length);
  kept.step(batch, Recompute::none);
  again.step(batch, Recompute::layer);
  for (const auto& p : kept.model.parameters()) EXPECT_EQ(kept.gradient(p.name), again.gradient(p.name)) << p.name;
}

TEST(MixtralVsReferenceCatches, ANaNInOneGradient) {
  const Case c = cases()[0];
  const auto weights = float_parameters(c.config, 5);
  RealModel real(c.config, weights, c.length);
  real.step(reference::random_batch(c.config, c.sequences, c.length, 9, c.documents, c.masked));
  for (const Parameter& p : real.model.parameters()) {
    const auto whole = real.gradient(p.name);
    p.gradient.f32()[p.gradient.elements() / 2] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_NE(test::disagreement(real.gradient(p.name), whole, 2e-5, 0.01), "") << p.name;
  }
}

// A wrong rule must be far outside the bound above: without its balance term the router's gradient is off by much more.
TEST(MixtralVsReferenceCatches, ADroppedBalanceGradient) {
  auto c = cases()[0];
  const auto weights = float_parameters(c.config, 5);
  const auto batch = reference::random_batch(c.config, c.sequences, c.length, 9, c.documents, c.masked);
  RealModel right(c.config, weights, c.length);
  right.step(batch);
  c.config.aux_coef = 0;
  RealModel wrong(c.config, weights, c.length);
  wrong.step(batch);
  const std::string gate = "model.layers.0.block_sparse_moe.gate.weight";
  EXPECT_GT(test::deviation(wrong.gradient(gate), right.gradient(gate)), 1e-2);
}

// Neither is there unless asked for, and each moves a gradient by far more than the bound above.
TEST(MixtralVsReferenceCatches, SmoothingAndNoiseLeftOut) {
  const Case c = cases()[0];
  const auto weights = float_parameters(c.config, 5);
  const auto batch = reference::random_batch(c.config, c.sequences, c.length, 9, c.documents, c.masked);
  RealModel right(c.config, weights, c.length);
  right.step(batch);
  for (double reference::ReferenceConfig::*option :
       {&reference::ReferenceConfig::label_smoothing, &reference::ReferenceConfig::neftune_alpha}) {
    reference::ReferenceConfig other = c.config;
    other.*option = 0.2;
    RealModel wrong(other, weights, c.length);
    wrong.step(batch);
    EXPECT_GT(test::deviation(wrong.gradient("lm_head.weight"), right.gradient("lm_head.weight")), 1e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MixtralVsReference, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
