// A step of another objective than the product's: its loss and every gradient against the reference, whole and cut into
// micro-batches. That layouts agree is a case of the equivalence matrix (tests/ranks).
#include "trainer/objective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/model/model_fixture.h"
#include "tests/support/deviation.h"
#include "tests/support/weighted_cross_entropy.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

class ObjectiveTest : public ::testing::Test {
 protected:
  static reference::ReferenceConfig config() {
    reference::ReferenceConfig c;
    c.vocab = 53, c.hidden = 32, c.ffn = 48, c.layers = 2;
    c.heads = 8, c.kv_heads = 2, c.head_dim = 4;
    c.experts = 8, c.top_k = 2;
    c.aux_coef = 0.3, c.z_coef = 0.01;
    c.scope = reference::BalanceScope::sequence;  // the same however the step is cut
    return c;
  }

  struct Step {
    Step(const ObjectiveTest& test, std::int64_t micro_batch_size, std::unique_ptr<Objective> objective)
        : real(config(), test.weights, test.batch.sequence_length),
          optimizer(*real.backend, real.persistent, real.model.parameters(), real.mesh, {}),
          step(*real.backend, real.mesh, real.model, optimizer, real.router, micro_batch_size, Recompute::none,
               std::move(objective)),
          result(step.compute_gradients({test.batch.sequences, test.batch.sequence_length, test.batch.tokens,
                                         test.batch.targets, test.batch.document_start})) {}
    RealModel real;
    AdamW optimizer;
    TrainingStep step;
    StepResult result;
  };

  // Loss, count and every gradient of the step are those of the reference.
  static void expect_reference(Step& found, const reference::Batch& batch, const reference::Parameters<double>& weights,
                               double label_smoothing = 0) {
    reference::ReferenceConfig smoothed = config();
    smoothed.label_smoothing = label_smoothing;
    reference::ModelSaved<double> saved;
    const auto expected = reference::model_forward(smoothed, weights, batch, saved);
    auto gradients = reference::make_parameters<double>(smoothed);
    reference::model_backward(smoothed, weights, batch, saved, gradients);
    EXPECT_EQ(found.result.count, batch.target_count);
    EXPECT_NEAR(found.result.lm_loss, expected.lm, 2e-6 * std::abs(expected.lm));
    EXPECT_NEAR(found.result.loss, expected.total, 2e-6 * std::abs(expected.total));
    reference::visit_parameters(gradients, [&](const std::string& name, const auto&, const std::vector<double>& truth) {
      // Rounding, as the whole model's test has it (tests/model/mixtral_vs_reference_test.cpp).
      const double tolerance = name.find(".gate.") != std::string::npos ? 5e-5 : 2e-5;
      EXPECT_EQ(test::disagreement(found.real.gradient(name), truth, tolerance, 0.01), "") << name;
    });
  }

  // The reference's batch, with the weights that the objective gives.
  reference::Batch weighted() const {
    const test::WeightedCrossEntropy objective(test::uneven_weights(config().vocab));
    reference::Batch whole = batch;
    whole.target_count = 0;
    for (const std::int32_t target : batch.targets) {
      whole.weights.push_back(objective.weight(target));
      whole.target_count += whole.weights.back();
    }
    return whole;
  }
  static std::unique_ptr<Objective> weighted_objective() {
    return std::make_unique<test::WeightedCrossEntropy>(test::uneven_weights(config().vocab));
  }

  const reference::Parameters<double> weights = float_parameters(config(), 5);
  const reference::Batch batch = reference::random_batch(config(), 4, 17, 9, true, 0.3);
};

TEST_F(ObjectiveTest, CrossEntropyCountsItsTargets) {
  Step step(*this, 4, std::make_unique<CrossEntropy>());
  expect_reference(step, batch, weights);
}

// lm_loss is that of the targets themselves, which evaluation tells; what is differentiated is the smoothed one.
TEST_F(ObjectiveTest, SmoothedLabelsGiveTheReferencesLossesAndGradients) {
  Step plain(*this, 4, std::make_unique<CrossEntropy>());
  for (const std::int64_t micro_batch_size : {4, 1})
    for (const double smoothing : {0.1, 0.75}) {
      Step step(*this, micro_batch_size, std::make_unique<CrossEntropy>(smoothing));
      expect_reference(step, batch, weights, smoothing);
      if (micro_batch_size == 4) {
        EXPECT_EQ(step.result.lm_loss, plain.result.lm_loss);
      }
      EXPECT_NE(step.result.loss, plain.result.loss);
    }
}

TEST_F(ObjectiveTest, WeightedTargetsGiveTheReferencesGradients) {
  Step step(*this, 4, weighted_objective());
  expect_reference(step, weighted(), weights);
}

TEST_F(ObjectiveTest, WeightedTargetsGiveTheSameCutIntoMicroBatches) {
  Step step(*this, 1, weighted_objective());
  expect_reference(step, weighted(), weights);
}

TEST_F(ObjectiveTest, NothingToCountIsALossOfZeroAndNoGradientOfTheHead) {
  Step step(*this, 2, std::make_unique<test::WeightedCrossEntropy>(std::vector<float>(53, 0.0f)));
  EXPECT_EQ(step.result.count, 0);
  EXPECT_EQ(step.result.lm_loss, 0);
  EXPECT_TRUE(step.result.finite);
  const std::vector<float> head = step.real.gradient("lm_head.weight");
  EXPECT_TRUE(std::all_of(head.begin(), head.end(), [](float g) { return g == 0; }));
}

// One over it would be no scale, and a step scaled by nothing would pass for one that has nothing to count.
TEST_F(ObjectiveTest, AStepWhoseCountIsNotFiniteIsRefused) {
  struct Miscounted final : Objective {
    explicit Miscounted(double count) : wrong(count) {}
    double count(const StepBatch&) const override { return wrong; }
    void loss_and_gradient(Context& context, Mixtral& model, const StepBatch&, const TokenBatch& tokens, double scale,
                           Mixtral::Saved& saved, const Tensor& total) override {
      model.loss_and_gradient(context, tokens, scale, saved, total);
    }
    double wrong;
  };
  for (const double count : {std::nan(""), HUGE_VAL})
    EXPECT_TRUE(Step(*this, 2, std::make_unique<Miscounted>(count)).result.refused()) << count;
}

// What a preference needs: the losses of a forward first, and gradients by what they say.
TEST_F(ObjectiveTest, LossesStandAloneAndHaveTheSameBitsAsWithTheirGradient) {
  RealModel real(config(), weights, batch.sequence_length);
  Context context{*real.backend, real.mesh, real.activations, real.scratch};
  const TokenBatch tokens = make_token_batch(*real.backend, real.activations, batch.sequences, batch.sequence_length,
                                             batch.tokens, batch.targets, batch.document_start);
  real.model.forward(context, tokens, Keep::all, real.saved);
  real.model.losses(context, tokens, real.saved);
  const Tensor alone = real.saved.losses;
  real.model.head_gradient(context, tokens, 1.0, {}, real.saved);
  const Tensor with_gradient = real.saved.losses;
  EXPECT_TRUE(std::equal(alone.f32(), alone.f32() + alone.elements(), with_gradient.f32()));
  for (std::size_t t = 0; t < batch.targets.size(); ++t) EXPECT_EQ(alone.f32()[t] == 0, batch.targets[t] < 0) << t;
}

}  // namespace
}  // namespace smoe
