// One layer, and the whole loss of the reference Mixtral: every gradient against the complex step. Then the proof that
// the comparison would see a wrong backward.
#include <gtest/gtest.h>

#include "tests/reference/complex_step.h"
#include "tests/reference/random.h"

namespace smoe::reference {
namespace {

struct ModelCase {
  std::string name;
  ReferenceConfig config;
  Index sequences = 2, sequence_length = 5;
  bool documents = false;
  double masked = 0.2;
  friend std::ostream& operator<<(std::ostream& out, const ModelCase& c) { return out << c.name; }
};

ReferenceConfig with(std::initializer_list<std::pair<int ReferenceConfig::*, int>> changes, double aux = 0.3,
                     BalanceScope scope = BalanceScope::micro_batch, double z = 0.1) {
  ReferenceConfig c;
  for (const auto& [field, value] : changes) c.*field = value;
  c.aux_coef = aux;
  c.scope = scope;
  c.z_coef = z;
  return c;
}

using C = ReferenceConfig;

// What routing may be besides Mixtral's, all at once.
ReferenceConfig routed(Score score, bool renormalise, int top_k) {
  ReferenceConfig c = with({{&C::top_k, top_k}});
  c.rule = {score, renormalise, 1.7};
  c.selection_bias = {0.3, 0, 0, -0.2, 0, 0.4, -0.1, 0};
  c.capacity_factor = 0.8;
  c.jitter = 0.1;
  return c;
}

ReferenceConfig ranked() {
  ReferenceConfig c = routed(Score::softmax, true, 2);
  c.capacity_by_probability = true;
  return c;
}

ReferenceConfig fine_tuned() {
  ReferenceConfig c = with({});
  c.label_smoothing = 0.2;
  c.neftune_alpha = 5;
  return c;
}

ReferenceConfig by_layer(BalanceScope scope) {
  ReferenceConfig c = with({{&C::layers, 3}}, 0, scope);
  c.aux_coefs = {0.4, 0, 0.15};
  return c;
}

std::vector<ModelCase> model_cases() {
  return {
      {"softmax_scores_everything", routed(Score::softmax, false, 2), 3, 5, true},
      {"renormalised_everything", routed(Score::softmax, true, 3), 2, 4, false},
      {"sigmoid_scores_everything", routed(Score::sigmoid, false, 1), 2, 5, true},
      {"renormalised_sigmoids_everything", routed(Score::sigmoid, true, 2), 2, 5, true},
      {"capacity_by_probability", ranked(), 2, 5, true},
      {"k2_gqa_4_1_everything", with({{&C::window, 3}}, 0.3, BalanceScope::sequence), 3, 5, true},
      {"k1_gqa_1_1_micro_batch", with({{&C::top_k, 1}, {&C::kv_heads, 4}}), 2, 5, true},
      {"k3_pooled_hf_window_1", with({{&C::top_k, 3}, {&C::window, 1}, {&C::layers, 3}}, 0.2, BalanceScope::hf), 2, 4,
       false},
      {"k_equals_e", with({{&C::top_k, 4}, {&C::kv_heads, 2}, {&C::ffn, 5}}), 2, 4, false},
      {"coefficients_by_layer", by_layer(BalanceScope::micro_batch), 2, 5, true},
      {"coefficients_by_layer_of_sequences", by_layer(BalanceScope::sequence), 3, 4, true},
      {"smoothed_labels_noisy_embeddings", fine_tuned(), 2, 5, true},
      {"lm_loss_alone", with({}, 0, BalanceScope::micro_batch, 0), 2, 5, true},
      {"one_token", with({{&C::layers, 1}}), 1, 1, false, 0.0},
      {"all_masked", with({{&C::layers, 1}}, 0.3, BalanceScope::sequence), 2, 3, false, 1.0},
      {"odd_sizes_window_beyond",
       with({{&C::hidden, 7}, {&C::heads, 3}, {&C::head_dim, 4}, {&C::experts, 5}, {&C::window, 9}}), 1, 6, true},
  };
}

class ComplexStepModel : public testing::TestWithParam<ModelCase> {};

TEST_P(ComplexStepModel, EveryGradientOfTheWholeLoss) {
  const ModelCase& c = GetParam();
  const Parameters<double> parameters = random_parameters(c.config, 21);
  const Batch batch = random_batch(c.config, c.sequences, c.sequence_length, 22, c.documents, c.masked);
  const NamedGradients truth = complex_step_model_gradient(c.config, parameters, batch);
  const NamedGradients found = model_gradient(c.config, parameters, batch);
  ASSERT_EQ(found.size(), truth.size());
  bool any = false;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    // With one visible key the queries and keys have no gradient: what the terms of size one leave is rounding.
    EXPECT_LE(deviation(found[i].second, truth[i].second, 1.0), gradient_tolerance) << truth[i].first;
    any = any || largest(truth[i].second) > 1e-3;
  }
  EXPECT_TRUE(any) << "the case has no gradient to compare";
  if (c.config.capacity_factor == 0) return;
  ModelSaved<double> saved;
  model_forward(c.config, parameters, batch, saved);
  for (const auto& layer : saved.layers)
    EXPECT_NE(layer.dispatched.experts.values, layer.routing.experts.values) << "nothing is dropped";
}

INSTANTIATE_TEST_SUITE_P(Cases, ComplexStepModel, testing::ValuesIn(model_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(ComplexStep, OneLayer) {
  const ReferenceConfig config = with({{&C::window, 4}, {&C::layers, 1}});
  const Batch batch = random_batch(config, 2, 6, 31, true);
  const LayerParameters<double> p = random_parameters(config, 32).layers[0];
  Random random(33);
  const Matrix<double> x = random.matrix(12, config.hidden), dy = random.matrix(12, config.hidden);
  const Matrix<double> balance = random.matrix(2, config.experts);
  const double z_scale = 0.2;

  LayerSaved<double> saved;
  layer_forward(config, p, x, batch, saved);
  LayerParameters<double> gradients = make_parameters<double>(config).layers[0];
  const Matrix<double> dx = layer_backward(config, p, batch, saved, dy, balance, z_scale, gradients);

  const LayerParameters<Complex> complex_p = cast<Complex>(config, random_parameters(config, 32)).layers[0];
  const std::vector<double> truth = complex_step_gradient(x.values, [&](const std::vector<Complex>& z) {
    LayerSaved<Complex> s;
    const Matrix<Complex> y = layer_forward(config, complex_p, {12, config.hidden, z}, batch, s);
    const BalanceStatistics<Complex> statistics = balance_statistics(s.routing, 2);
    return project(y.values, dy.values) + project(statistics.probability_sums.values, balance.values) +
           z_scale * sum(statistics.z_sums);
  });
  EXPECT_LE(deviation(dx.values, truth), gradient_tolerance);
}

TEST(ComplexStep, WeightedTargets) {
  const ReferenceConfig config = with({});
  const Parameters<double> parameters = random_parameters(config, 43);
  Batch batch = random_batch(config, 2, 5, 44, true);
  batch.weights = Random(45).normals(10, 0.5, 1.0);
  const NamedGradients truth = complex_step_model_gradient(config, parameters, batch);
  const NamedGradients found = model_gradient(config, parameters, batch);
  for (std::size_t i = 0; i < truth.size(); ++i)
    EXPECT_LE(deviation(found[i].second, truth[i].second), gradient_tolerance) << truth[i].first;
  batch.weights.clear();
  const NamedGradients unweighted = model_gradient(config, parameters, batch);
  double worst = 0;
  for (std::size_t i = 0; i < truth.size(); ++i)
    worst = std::max(worst, deviation(unweighted[i].second, truth[i].second));
  EXPECT_GT(worst, 1e-6) << "weights that change nothing prove nothing";
}

// With one expert a token the renormalised weight is always 1: the LM loss cannot reach the router.
TEST(ComplexStep, RouterOfTopOneHasNoGradientFromTheLmLoss) {
  const ReferenceConfig config = with({{&C::top_k, 1}}, 0, BalanceScope::micro_batch, 0);
  const Parameters<double> parameters = random_parameters(config, 41);
  const Batch batch = random_batch(config, 2, 5, 42, true);
  const NamedGradients truth = complex_step_model_gradient(config, parameters, batch);
  const NamedGradients found = model_gradient(config, parameters, batch);
  int routers = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i].first.find("gate") == std::string::npos) continue;
    EXPECT_EQ(largest(found[i].second), 0) << found[i].first;
    EXPECT_LE(largest(truth[i].second), 1e-15) << truth[i].first;
    ++routers;
  }
  EXPECT_EQ(routers, config.layers);
}

// ---- the comparison must be able to fail: each of these backwards is wrong in a way that has happened to others ----

class ComplexStepSeesMistakes : public testing::Test {
 protected:
  ReferenceConfig config_ = with({{&C::window, 3}}, 0.3, BalanceScope::sequence);
  Parameters<double> parameters_ = random_parameters(config_, 51);
  Batch batch_ = random_batch(config_, 3, 5, 52, true);

  // The backward of another loss, held against the truth of this one: the largest deviation of any tensor.
  double deviation_of(const ReferenceConfig& wrong_config, const Batch& wrong_batch) {
    const NamedGradients truth = complex_step_model_gradient(config_, parameters_, batch_);
    const NamedGradients wrong = model_gradient(wrong_config, parameters_, wrong_batch);
    test::Worst worst;
    for (std::size_t i = 0; i < truth.size(); ++i)
      worst.add(deviation(wrong[i].second, truth[i].second), truth[i].first);
    return worst.value;
  }
};

TEST_F(ComplexStepSeesMistakes, None) { EXPECT_LE(deviation_of(config_, batch_), gradient_tolerance); }

TEST_F(ComplexStepSeesMistakes, BalanceLossDropped) {
  ReferenceConfig wrong = config_;
  wrong.aux_coef = 0;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, ZLossDropped) {
  ReferenceConfig wrong = config_;
  wrong.z_coef = 0;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, BalanceLossMeanOverLayersForSum) {
  ReferenceConfig wrong = config_;
  wrong.aux_coef /= config_.layers;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, BalanceOverTheMicroBatchForEachSequence) {
  ReferenceConfig wrong = config_;
  wrong.scope = BalanceScope::micro_batch;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, MaskedTargetsCountedInTheMean) {
  Batch wrong = batch_;
  wrong.target_count = double(batch_.targets.size());
  EXPECT_GT(deviation_of(config_, wrong), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, DocumentsIgnored) {
  Batch wrong = batch_;
  wrong.document_start.clear();
  EXPECT_GT(deviation_of(config_, wrong), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, WindowOffByOne) {
  ReferenceConfig wrong = config_;
  wrong.window = 4;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, EpsilonOfTheNormChanged) {
  ReferenceConfig wrong = config_;
  wrong.eps = 2e-5;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, ScaleOfTheWeightsForgotten) {
  ReferenceConfig wrong = config_;
  wrong.rule.scale = 1.5;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, OtherNoiseInBackward) {
  config_.jitter = 0.1;
  Batch wrong = batch_;
  wrong.noise_key = 1;
  EXPECT_GT(deviation_of(config_, wrong), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, SmoothingForgottenInBackward) {
  ReferenceConfig wrong = config_;
  wrong.label_smoothing = 0.1;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST_F(ComplexStepSeesMistakes, DroppedAssignmentsKept) {
  config_.capacity_factor = 0.8;
  ReferenceConfig wrong = config_;
  wrong.capacity_factor = 0;
  EXPECT_GT(deviation_of(wrong, batch_), 1e-6);
}

TEST(ComplexStepSeesMistakesInOps, RmsNormWithoutTheStatisticsTerm) {
  Random random(61);
  const Matrix<double> x = random.matrix(4, 5), dy = random.matrix(4, 5);
  const std::vector<double> weight = random.normals(5);
  const RmsNorm<double> forward = rms_norm_forward(x, weight, 1e-5);
  Matrix<double> wrong = dy;
  for (Index t = 0; t < 4; ++t)
    for (Index d = 0; d < 5; ++d) wrong(t, d) *= weight[d] * forward.rstd[t];
  const std::vector<double> truth = complex_step_gradient(x.values, [&](const std::vector<Complex>& z) {
    return project(rms_norm_forward({4, 5, z}, cast<Complex>(weight), 1e-5).y.values, dy.values);
  });
  EXPECT_GT(deviation(wrong.values, truth), 1e-6);
}

TEST(ComplexStepSeesMistakesInOps, RouterWithoutRenormalisation) {
  Random random(62);
  const Matrix<double> logits = random.matrix(4, 5), dweights = random.matrix(4, 2);
  const Routing<double> r = router_forward(logits, 2);
  Matrix<double> wrong(4, 5);  // the chosen probabilities treated as the weights
  for (Index t = 0; t < 4; ++t)
    for (Index k = 0; k < 2; ++k)
      for (Index e = 0; e < 5; ++e) {
        const double p = r.probabilities(t, r.experts(t, k));
        wrong(t, e) += dweights(t, k) * p * ((e == r.experts(t, k) ? 1 : 0) - r.probabilities(t, e));
      }
  const std::vector<double> truth = complex_step_gradient(logits.values, [&](const std::vector<Complex>& z) {
    return project(router_forward(Matrix<Complex>{4, 5, z}, 2).weights.values, dweights.values);
  });
  EXPECT_GT(deviation(wrong.values, truth), 1e-6);
}

}  // namespace
}  // namespace smoe::reference
