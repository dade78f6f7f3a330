// The router alone: whom it chooses with what weight, what it counts, and what the losses send back through it.
#include "model/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/model/layer_harness.h"
#include "tests/model/reference_routing.h"
#include "tests/reference/noise.h"
#include "tests/reference/router.h"

namespace smoe {
namespace {

using reference::Score;
using Values = reference::Matrix<double>;
const std::string gate = "gate.weight";

struct RouterCase {
  const char* name;
  std::int64_t tokens, hidden, experts, top_k;
  std::int64_t groups = 1;
  bool tied = false;  // every second expert has the gate of the one before it
  reference::RoutingRule rule{};
  double bias = 0;    // spread of the selection bias
  double jitter = 0;  // of the router's input
};
void PrintTo(const RouterCase& c, std::ostream* out) { *out << c.name; }

const std::vector<RouterCase> router_cases = {
    {"top_2", 24, 32, 8, 2, 3},
    {"top_1", 20, 17, 5, 1, 2},
    {"every_expert", 9, 12, 4, 4},
    {"one_expert", 7, 12, 1, 1},
    {"tied", 26, 20, 6, 3, 2, true},
    {"tied_top_1", 12, 20, 4, 1, 1, true},
    {"one_token", 1, 24, 8, 2},
    {"no_tokens", 0, 24, 8, 2},
    {"many_tokens", 700, 64, 16, 4, 7},
    {"scaled", 24, 32, 8, 2, 3, false, {Score::softmax, true, 2.5}},
    {"softmax_scores", 24, 32, 8, 1, 3, false, {Score::softmax, false, 1}},
    {"sigmoid_scores_jittered", 24, 33, 8, 3, 3, false, {Score::sigmoid, false, 0.5}, 0, 0.25},
    {"sigmoids_biased", 24, 32, 8, 3, 2, false, {Score::sigmoid, true, 2.5}, 0.5},
    {"biased_jittered", 24, 31, 8, 2, 2, false, {}, 0.5, 0.125},
};

// The layer, its input, and the reference's routing of it.
class RouterAlone : public ::testing::TestWithParam<RouterCase> {
 protected:
  RouterAlone() {
    config_.hidden_size = c_.hidden;
    config_.num_local_experts = c_.experts;
    config_.num_experts_per_tok = c_.top_k;
    set_rule(config_, c_.rule);
    router_.emplace(harness_.parameters, "", config_, RoutingOptions{.jitter = static_cast<float>(c_.jitter)}, layer);
    harness_.allocate();
    weight_ = harness_.weight(gate);
    for (std::int64_t e = 1; c_.tied && e < c_.experts; e += 2)
      for (std::int64_t d = 0; d < c_.hidden; ++d) weight_(e, d) = weight_(e - 1, d);
    harness_.set(harness_.parameter(gate).value, weight_);
    x_ = harness_.random_floats(c_.tokens, c_.hidden, 2);
    noise_ = reference::noise_factors({noise_key, first_token, layer, c_.jitter}, c_.tokens, c_.hidden);
    jittered_ = reference::apply_noise(x_, noise_);
    logits_ = reference::linear_forward(jittered_, weight_);
    std::vector<double> bias;
    if (c_.bias > 0) {
      bias = harness_.random_floats(c_.experts, 1, c_.bias).values;
      router_->use_selection_bias(harness_.tensor(bias));
    }
    routing_ = reference::router_forward(logits_, c_.top_k, c_.rule, bias);
    EXPECT_EQ(routing_.experts.values == reference::router_forward(logits_, c_.top_k).experts.values, c_.bias == 0);
  }
  void forward() {
    statistics_ = {harness_.unwritten({c_.groups, c_.experts}), harness_.unwritten({c_.groups, c_.experts}),
                   harness_.unwritten({c_.groups})};
    TokenBatch batch{
        .sequences = 1, .sequence_length = c_.tokens, .ids = {}, .targets = {}, .document_start = {}, .positions = {}};
    batch.noise = BatchNoise{noise_key, first_token};
    router_->forward(harness_.context, batch, harness_.tensor(x_), saved_, statistics_);
  }

  const RouterCase& c_ = GetParam();
  LayerHarness harness_{"router", 23};
  ModelConfig config_;
  std::optional<Router> router_;
  static constexpr std::uint64_t noise_key = 0x123456789abcdef;
  static constexpr int first_token = 1000, layer = 3;
  Values weight_, x_, noise_, jittered_, logits_;
  reference::Routing<double> routing_;
  Router::Saved saved_;
  RouterStatistics statistics_;
};

TEST_P(RouterAlone, ForwardIsTheReferences) {
  forward();
  harness_.expect_close("logits", saved_.logits, logits_.values, layer_tolerance);
  harness_.expect_close("probabilities", saved_.probabilities, routing_.probabilities.values, layer_tolerance);
  harness_.expect_close("logsumexp", saved_.logsumexp, routing_.logsumexp, layer_tolerance);
  EXPECT_EQ(harness_.read_ids(saved_.experts), routing_.experts.values);
  harness_.expect_close("weights", saved_.weights, routing_.weights.values, layer_tolerance);
  const auto expected = reference::balance_statistics(routing_, c_.groups);
  harness_.expect_close("counts", statistics_.counts, expected.counts.values, 0);
  harness_.expect_close("probability sums", statistics_.probability_sums, expected.probability_sums.values,
                        layer_tolerance);
  harness_.expect_close("z sums", statistics_.z_sums, expected.z_sums, layer_tolerance);
}

// Of two equal gates the first is chosen first: no expert stands before its equal with a lower index.
using RouterOfTies = RouterAlone;
TEST_P(RouterOfTies, TheLowestIndexWins) {
  forward();
  const auto experts = harness_.read_ids(saved_.experts);
  const auto K = static_cast<std::size_t>(c_.top_k);
  for (std::size_t t = 0; t < experts.size(); t += K)
    for (std::size_t k = 0; k < K; ++k)
      if (experts[t + k] % 2 == 1) {
        ASSERT_GT(k, 0u) << "token " << t / K;
        EXPECT_EQ(experts[t + k - 1], experts[t + k] - 1) << "token " << t / K;
      }
}

TEST_P(RouterAlone, BackwardIsTheReferences) {
  forward();
  const double z_scale = 0.07;
  const Values dweights = harness_.random_floats(c_.tokens, c_.top_k),
               balance = harness_.random_floats(c_.groups, c_.experts);
  const Values dx_before = harness_.random_floats(c_.tokens, c_.hidden);
  Values expected_gate = harness_.gradient(gate);
  const Values dlogits = reference::router_backward(logits_, routing_, dweights, balance, z_scale, c_.rule);
  const Values djittered = reference::linear_backward(dlogits, jittered_, weight_, expected_gate);
  const Values expected_dx = reference::add(dx_before, reference::apply_noise(djittered, noise_));

  const Tensor dx = harness_.tensor(dx_before);
  router_->backward(harness_.context, harness_.tensor(dweights), {harness_.tensor(balance), z_scale}, saved_, dx);
  harness_.expect_close("dx", dx, expected_dx.values, layer_tolerance);
  harness_.expect_gradient(gate, expected_gate);
}

// Of each loss alone, they add up to the gradient, and asking for them changes nothing else.
TEST_P(RouterAlone, PartsOfTheGatesGradientAreTheReferences) {
  forward();
  const double z_scale = 0.07;
  const Values dweights = harness_.random_floats(c_.tokens, c_.top_k), none(c_.tokens, c_.top_k),
               balance = harness_.random_floats(c_.groups, c_.experts);
  const Tensor dx = harness_.tensor(Values(c_.tokens, c_.hidden));
  const Tensor parts = harness_.tensor(Values(3 * c_.experts, c_.hidden)).reshape({3, c_.experts, c_.hidden});
  router_->backward(harness_.context, harness_.tensor(dweights), {harness_.tensor(balance), z_scale, parts}, saved_,
                    dx);
  const auto expect_part = [&](std::int64_t part, const Values& dlogits) {
    Values expected(c_.experts, c_.hidden);
    reference::linear_backward(dlogits, jittered_, weight_, expected);
    harness_.expect_close("part " + std::to_string(part), parts.rows(part, 1).reshape({c_.experts, c_.hidden}),
                          expected.values, layer_tolerance);
  };
  expect_part(0, reference::router_backward(logits_, routing_, dweights, Values(), 0, c_.rule));
  expect_part(1, reference::router_backward(logits_, routing_, none, balance, 0, c_.rule));
  expect_part(2, reference::router_backward(logits_, routing_, none, Values(), z_scale, c_.rule));
}

// Of renormalised weights: the language-model loss reaches only logits that were chosen, and none where one expert has all
// the weight.
using RouterOfMixtral = RouterAlone;
TEST_P(RouterOfMixtral, WithoutBalanceLossesOnlyTheChosenLearn) {
  forward();
  const Values dweights = harness_.random_floats(c_.tokens, c_.top_k);
  const Values before = harness_.gradient(gate);
  Values expected = before;
  reference::linear_backward(reference::router_backward(logits_, routing_, dweights, Values(), 0.0), x_, weight_,
                             expected);
  router_->backward(harness_.context, harness_.tensor(dweights), {}, saved_,
                    harness_.tensor(Values(c_.tokens, c_.hidden)));
  harness_.expect_gradient(gate, expected);
  if (c_.top_k == 1)
    harness_.expect_close("the gate's gradient with one expert a token", harness_.parameter(gate).gradient,
                          before.values, 0);
}

std::vector<RouterCase> cases_with(bool (*wanted)(const RouterCase&)) {
  std::vector<RouterCase> cases;
  std::copy_if(router_cases.begin(), router_cases.end(), std::back_inserter(cases), wanted);
  return cases;
}
bool is_tied(const RouterCase& c) { return c.tied; }
bool is_mixtrals(const RouterCase& c) {
  return c.rule.score == Score::softmax && c.rule.renormalise && c.rule.scale == 1 && c.bias + c.jitter == 0;
}

const auto case_name = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Shapes, RouterAlone, ::testing::ValuesIn(router_cases), case_name);
INSTANTIATE_TEST_SUITE_P(Shapes, RouterOfTies, ::testing::ValuesIn(cases_with(is_tied)), case_name);
INSTANTIATE_TEST_SUITE_P(Shapes, RouterOfMixtral, ::testing::ValuesIn(cases_with(is_mixtrals)), case_name);

}  // namespace
}  // namespace smoe
