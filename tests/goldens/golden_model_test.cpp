// Logits, losses, gradients and ten AdamW steps against transformers. The tolerances are the contract: they are stated
// once, here, and hold for every tensor by name.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "tests/goldens/golden.h"

namespace smoe {
namespace {

constexpr double logits_tolerance = 2e-5;    // of the largest logit
constexpr double gradient_tolerance = 1e-4;  // of the tensor's largest entry
constexpr double weight_tolerance = 1e-4;    // of the tensor's largest entry, after ten steps
constexpr double loss_tolerance = 1e-5;      // relative

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  // Fails, or prints the measured deviation.
  static void expect_within(const Worst& worst, double tolerance, const char* what) {
    EXPECT_LE(worst.value, tolerance) << what << ": the worst is " << worst.name;
    fmt::print("  {} {}: {:.2e} ({}), allowed {:.0e}\n", GetParam(), what, worst.value, worst.name, tolerance);
  }

  GoldenFile golden{GetParam()};
};

using Golden = GoldenTest;
TEST_P(Golden, LogitsAndRouterLogits) {
  GoldenModel real(golden);
  Mixtral::Saved saved;
  const Tensor logits = real.logits(saved);

  Worst worst;
  worst.add(deviation(real.on_host(logits), golden.values("logits")), "logits");
  for (std::size_t l = 0; l < saved.layers.size(); ++l) {
    const std::string name = "router_logits." + std::to_string(l);
    worst.add(deviation(real.on_host(saved.layers[l].router.logits), golden.values(name)), name);
  }
  expect_within(worst, logits_tolerance, "logits");
}

TEST_P(Golden, LossesAndEveryGradient) {
  GoldenModel real(golden);
  const StepResult result = real.step->compute_gradients(golden.batch(1));

  Worst losses, gradients;
  losses.add(deviation(result.lm_loss, golden.by_step("lm_loss")[0]), "lm_loss");
  losses.add(deviation(result.aux_loss, golden.by_step("aux_loss")[0]), "aux_loss");
  losses.add(deviation(result.grad_norm, golden.by_step("grad_norm")[0]), "grad_norm");
  expect_within(losses, loss_tolerance, "losses and norm");

  for (const Parameter& p : real.model.parameters())
    gradients.add(deviation(real.on_host(p.gradient), golden.values("grad." + p.name)), p.name);
  expect_within(gradients, gradient_tolerance, "gradients");
}

// The goldens would notice: a model that differs in one thing is far outside the tolerance.
TEST_P(Golden, OnePercentMoreBalanceLossIsNoticed) {
  RouterConfig router = golden.router;
  router.aux_loss_coef *= 1.01;
  GoldenModel real(golden, router, Recompute::none, golden.sequences);
  real.step->compute_gradients(golden.batch(1));
  Worst routers;
  for (const Parameter& p : real.model.parameters())
    if (p.name.ends_with("gate.weight"))
      routers.add(deviation(real.on_host(p.gradient), golden.values("grad." + p.name)), p.name);
  EXPECT_GT(routers.value, 2 * gradient_tolerance);
}

TEST_P(Golden, AnotherWindowIsNoticed) {
  golden.model.sliding_window =
      golden.model.sliding_window ? *golden.model.sliding_window + 1 : golden.sequence_length - 1;
  GoldenModel real(golden);
  EXPECT_GT(deviation(real.step->compute_gradients(golden.batch(1)).lm_loss, golden.by_step("lm_loss")[0]),
            loss_tolerance);
}

using GoldenAdamW = GoldenTest;
TEST_P(GoldenAdamW, TenStepsWithWarmupCosineAndClipping) {
  GoldenModel real(golden);
  const auto lm = golden.by_step("lm_loss"), aux = golden.by_step("aux_loss"), norm = golden.by_step("grad_norm");
  const auto rates = golden.by_step("learning_rate");
  ASSERT_EQ(golden.steps, 10);
  Worst losses;
  for (std::int64_t step = 1; step <= golden.steps; ++step) {
    const auto i = static_cast<std::size_t>(step - 1);
    EXPECT_NEAR(learning_rate(golden.schedule, golden.optimizer.learning_rate, step, golden.steps), rates[i], 1e-15);
    const StepResult result = real.train(step);
    losses.add(deviation(result.lm_loss, lm[i]), fmt::format("lm_loss of step {}", step));
    losses.add(deviation(result.aux_loss, aux[i]), fmt::format("aux_loss of step {}", step));
    losses.add(deviation(result.grad_norm, norm[i]), fmt::format("grad_norm of step {}", step));
  }
  expect_within(losses, loss_tolerance, "losses and norms of ten steps");

  Worst weights;
  double least_moved = std::numeric_limits<double>::infinity();
  for (const Parameter& p : real.model.parameters()) {
    const std::vector<float> after = golden.values("after." + p.name);
    weights.add(deviation(real.on_host(p.value), after), p.name);
    least_moved = std::min(least_moved, deviation(golden.values("weight." + p.name), after));
  }
  expect_within(weights, weight_tolerance, "weights after ten steps");
  EXPECT_GT(least_moved, 20 * weight_tolerance) << "weights that hardly move test nothing";
}

TEST_P(GoldenAdamW, StepsWithoutClippingAreNoticed) {
  golden.optimizer.max_grad_norm = 0;
  GoldenModel real(golden);
  for (std::int64_t step = 1; step <= golden.steps; ++step) real.train(step);
  Worst weights;
  for (const Parameter& p : real.model.parameters())
    weights.add(deviation(real.on_host(p.value), golden.values("after." + p.name)), p.name);
  EXPECT_GT(weights.value, 10 * weight_tolerance);
}

using GoldenRecompute = GoldenTest;
TEST_P(GoldenRecompute, LayersComputedAgainGiveTheSameBits) {
  GoldenModel kept(golden, Recompute::none), again(golden, Recompute::layer);
  for (std::int64_t step = 1; step <= golden.steps; ++step) {
    const StepResult a = kept.train(step), b = again.train(step);
    EXPECT_EQ(a.loss, b.loss) << "step " << step;
    EXPECT_EQ(a.grad_norm, b.grad_norm) << "step " << step;
  }
  for (const Parameter& p : kept.model.parameters())
    EXPECT_EQ(kept.on_host(p.value), again.on_host(again.model.parameters().find(p.name)->value)) << p.name;
}

using GoldenAccumulation = GoldenTest;
TEST_P(GoldenAccumulation, MicroBatchesGiveTheGradientOfTheWholeStep) {
  RouterConfig without_balance = golden.router;
  without_balance.aux_loss_coef = 0;  // the pooled loss is of a micro-batch: it does depend on the cut
  constexpr double rounding = 5e-6;

  GoldenModel whole(golden, without_balance, Recompute::none, golden.sequences);
  const StepResult expected = whole.step->compute_gradients(golden.batch(1));
  int cuts = 0;
  for (const std::int64_t micro_batches : {2, 3, 4}) {
    if (golden.sequences % micro_batches != 0) continue;
    ++cuts;
    GoldenModel cut(golden, without_balance, Recompute::none, golden.sequences / micro_batches);
    const StepResult found = cut.step->compute_gradients(golden.batch(1));
    EXPECT_EQ(found.count, expected.count);
    EXPECT_NEAR(found.lm_loss, expected.lm_loss, 1e-6 * expected.lm_loss);
    EXPECT_NEAR(found.grad_norm, expected.grad_norm, 1e-6 * expected.grad_norm);
    Worst gradients;
    for (const Parameter& p : whole.model.parameters()) {
      const Tensor gradient = cut.model.parameters().find(p.name)->gradient;
      gradients.add(deviation(cut.on_host(gradient), whole.on_host(p.gradient)), p.name);
    }
    expect_within(gradients, rounding, fmt::format("gradients in {} micro-batches", micro_batches).c_str());
  }
  EXPECT_GT(cuts, 0);
}

const auto files = testing::ValuesIn(golden_names());
const auto file_name = [](const testing::TestParamInfo<std::string>& info) { return info.param; };
INSTANTIATE_TEST_SUITE_P(Transformers, Golden, files, file_name);
INSTANTIATE_TEST_SUITE_P(Transformers, GoldenAdamW, files, file_name);
INSTANTIATE_TEST_SUITE_P(Transformers, GoldenRecompute, files, file_name);
INSTANTIATE_TEST_SUITE_P(Transformers, GoldenAccumulation, files, file_name);

}  // namespace
}  // namespace smoe
