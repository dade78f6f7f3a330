// The head alone: the loss of each token, and the gradient of their sum, with and without a scale for each.
#include "model/lm_head.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "tests/model/layer_harness.h"
#include "tests/reference/cross_entropy.h"
#include "tests/reference/linear.h"

namespace smoe {
namespace {

using Values = reference::Matrix<double>;
const std::string lm_head = "lm_head.weight";

struct HeadCase {
  const char* name;
  std::int64_t tokens, hidden, vocabulary;
  double masked = 0.3;
};
void PrintTo(const HeadCase& c, std::ostream* out) { *out << c.name; }

const std::vector<HeadCase> head_cases = {
    {"some_masked", 37, 24, 61},
    {"none_masked", 16, 32, 64, 0},
    {"all_masked", 9, 16, 30, 1},
    {"one_token", 1, 16, 11, 0},
    {"no_tokens", 0, 16, 11},
    {"vocabulary_of_one", 6, 8, 1, 0},
    // 64 MiB hold the logits of 64 of these tokens: several chunks, and the weight's gradient is a sum over them.
    {"several_chunks", 150, 4, 262'144},
};

class LmHeadAlone : public ::testing::TestWithParam<HeadCase> {};

TEST_P(LmHeadAlone, LossesAndGradientAreTheReferences) {
  const HeadCase& c = GetParam();
  ModelConfig config;
  config.hidden_size = c.hidden;
  config.vocab_size = c.vocabulary;
  LayerHarness harness("head", 41);
  const LmHead head(harness.parameters, config, harness.mesh);
  harness.allocate();

  const Values weight = harness.weight(lm_head), x = harness.random_floats(c.tokens, c.hidden, 2);
  reference::Ids targets = harness.random().ids(c.tokens, c.vocabulary);
  for (auto& target : targets)
    if (harness.random().uniform() < c.masked) target = -100;
  const double scale = 0.125;
  const Values logits = reference::linear_forward(x, weight);
  const auto expected =
      reference::cross_entropy_losses(targets, reference::cross_entropy_statistics(logits, targets, 0));

  const Tensor losses = harness.unwritten({c.tokens}), tx = harness.tensor(x), ttargets = harness.tensor(targets);
  head.losses(harness.context, tx, ttargets, losses);
  harness.expect_close("losses", losses, expected.losses, layer_tolerance);

  const std::vector<double> expected_uniform = reference::uniform_losses(
      targets, reference::cross_entropy_statistics(logits, targets, 0), static_cast<reference::Index>(c.vocabulary));
  Values gradient = harness.gradient(lm_head);  // of all calls
  struct Way {
    bool weighted;
    double smoothing;
  };
  for (const auto& [weighted, smoothing] : {Way{false, 0}, Way{true, 0}, Way{false, 0.1}, Way{true, 0.5}}) {
    std::vector<double> token_scales;
    if (weighted) token_scales = harness.random_floats(c.tokens, 1).values;
    const Values dlogits =
        reference::cross_entropy_backward(logits, targets, 0, expected.logsumexp, scale, token_scales,
                                          {smoothing, static_cast<reference::Index>(c.vocabulary)});
    const Values expected_dx = reference::linear_backward(dlogits, x, weight, gradient);
    const Tensor again = harness.unwritten({c.tokens}), dx = harness.unwritten({c.tokens, c.hidden}),
                 uniform = smoothing > 0 ? harness.unwritten({c.tokens}) : Tensor();
    head.losses_and_gradient(harness.context, tx, ttargets, scale, weighted ? harness.tensor(token_scales) : Tensor(),
                             smoothing, again, uniform, dx);
    const std::string how = std::string(weighted ? " of scaled tokens" : "") + (smoothing > 0 ? ", smoothed" : "");
    if (smoothing > 0) harness.expect_close("uniform losses" + how, uniform, expected_uniform, layer_tolerance);
    harness.expect_close("losses beside the gradient" + how, again, expected.losses, layer_tolerance);
    harness.expect_close("dx" + how, dx, expected_dx.values, layer_tolerance);
    harness.expect_gradient(lm_head, gradient);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LmHeadAlone, ::testing::ValuesIn(head_cases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
