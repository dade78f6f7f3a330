// What routers are warned of, on loads, entropies and gradients whose values are known.
#include "trainer/router_watch.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "kernels/routing.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using test::mentions;

using Load = std::vector<std::vector<double>>;
using Texts = std::vector<std::string>;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Two layers of four experts, two a token.
RouterWatchOptions two_layers() {
  RouterWatchOptions options;
  options.model.num_hidden_layers = 2;
  options.model.num_local_experts = 4;
  options.model.num_experts_per_tok = 2;
  options.trained_gates = {true, true};
  options.idle_expert_steps = 5;
  return options;
}

const Load even = {{.25, .25, .25, .25}, {.25, .25, .25, .25}};
const Load one_idle = {{.25, .25, .25, .25}, {.5, .25, 0, .25}};

StepMetrics row_of(std::int64_t step, std::vector<double> entropy, std::vector<double> lm = {},
                   std::vector<double> balance = {}) {
  StepMetrics row;
  row.step = step;
  row.aux_loss_coef = {0.01};
  row.by_layer.entropy = std::move(entropy);
  row.by_layer.gradient_lm = std::move(lm);
  row.by_layer.gradient_balance = std::move(balance);
  return row;
}

// The numbers, from 1 on, of those of `count` alike rows that told something; row i is of step `first` + i.
std::vector<std::int64_t> telling_rows(RouterWatch& watch, std::int64_t count, StepMetrics row, Texts* told = nullptr) {
  std::vector<std::int64_t> found;
  for (std::int64_t i = 1; i <= count; ++i, ++row.step) {
    const Texts texts = watch.see_row(row);
    if (!texts.empty()) found.push_back(i);
    if (told) told->insert(told->end(), texts.begin(), texts.end());
  }
  return found;
}

using Numbers = std::vector<std::int64_t>;

// ---- idle experts -----------------------------------------------------------------------------------------------------

TEST(IdleExpert, IsToldOfAtStepNAndOnce) {
  RouterWatch watch(two_layers());
  for (std::int64_t step = 1; step <= 4; ++step) EXPECT_EQ(watch.see_step(step, one_idle), Texts{}) << step;
  const Texts told = watch.see_step(5, one_idle);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(
      told[0],
      "step 5: expert 2 of layer 1 has had less than 1% of an even share of the tokens in 5 steps: it learns next to nothing. Raise "
      "router.aux_loss_coef (0.01 now), or set router.bias_update_rate (1e-3 is usual), which, unlike a loss, "
      "reaches an expert whose probability is near 0");
  for (std::int64_t step = 6; step <= 30; ++step) EXPECT_EQ(watch.see_step(step, one_idle), Texts{}) << step;
}

TEST(IdleExpert, OneAssignmentBeginsTheCountAgain) {
  RouterWatch watch(two_layers());
  for (std::int64_t step = 1; step <= 4; ++step) watch.see_step(step, one_idle);
  EXPECT_EQ(watch.see_step(5, even), Texts{});
  for (std::int64_t step = 6; step <= 9; ++step) EXPECT_EQ(watch.see_step(step, one_idle), Texts{}) << step;
  EXPECT_EQ(watch.see_step(10, one_idle).size(), 1u);
}

// Of an even share of 5 steps a hundredth, 0.05 of one step's, is enough, however it comes.
TEST(IdleExpert, AStrayTokenForgivesNothing) {
  const auto with = [](double share) { return Load{{.25, .25, .25, .25}, {.5, .25, share / 4, .25 - share / 4}}; };
  RouterWatch watch(two_layers());
  for (std::int64_t step = 1; step <= 4; ++step) EXPECT_EQ(watch.see_step(step, with(0.009)), Texts{}) << step;
  EXPECT_EQ(watch.see_step(5, with(0.009)).size(), 1u);
  RouterWatch fed(two_layers()), at_once(two_layers());
  for (std::int64_t step = 1; step <= 60; ++step) {
    EXPECT_EQ(fed.see_step(step, with(0.011)), Texts{}) << step;
    EXPECT_EQ(at_once.see_step(step, with(step % 5 == 0 ? 0.051 : 0)), Texts{}) << step;
  }
}

TEST(IdleExpert, TakesTurnsWithoutAWarning) {
  RouterWatch watch(two_layers());
  const Load other = {{0, .5, .25, .25}, {.5, 0, .25, .25}};
  for (std::int64_t step = 1; step <= 60; ++step)
    EXPECT_EQ(watch.see_step(step, step % 5 == 0 ? other : one_idle), Texts{}) << step;
}

TEST(IdleExpert, ALoadThatIsNoNumberNeitherWarnsNorForgives) {
  RouterWatch watch(two_layers());
  const Load unknown = {{nan, nan, nan, nan}, {nan, nan, nan, nan}};
  for (std::int64_t step = 1; step <= 20; ++step) EXPECT_EQ(watch.see_step(step, unknown), Texts{});
  for (std::int64_t step = 1; step <= 4; ++step) watch.see_step(step, one_idle);
  for (std::int64_t step = 5; step <= 20; ++step) EXPECT_EQ(watch.see_step(step, unknown), Texts{}) << step;
  EXPECT_EQ(watch.see_step(21, one_idle).size(), 1u);
}

TEST(IdleExpert, SeveralAreCountedAndTheirLayersNamed) {
  RouterWatchOptions options = two_layers();
  options.model.num_hidden_layers = 6;
  options.trained_gates.assign(6, true);
  options.idle_expert_steps = 1;
  RouterWatch watch(options);
  const std::vector<double> full = even[0], one = {.5, .25, .25, 0}, two = {.5, .5, 0, 0};
  Texts told = watch.see_step(7, {one, two, one, full, two, full});
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(mentions(told[0],
                       {"step 7: 6 experts of layers 0-2, 4 (layer 1 has the most: 2 of 4) have had less than 1% of an "
                        "even share of the tokens in 1 steps: they learn next to nothing"}))
      << told[0];
  RouterWatch alike(options);
  EXPECT_TRUE(mentions(alike.see_step(7, {two, full, two, full, full, full}).at(0),
                       {"4 experts of layers 0, 2 (2 of 4 in each) have"}));
  RouterWatch other(options);
  told = other.see_step(7, {full, full, two, full, full, full});
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(mentions(told[0], {"2 experts of layer 2 (2 of 4) have"})) << told[0];
}

TEST(IdleExpert, IsNotToldOfWhereTheKeyIs0) {
  RouterWatchOptions options = two_layers();
  options.idle_expert_steps = 0;
  RouterWatch watch(options);
  for (std::int64_t step = 1; step <= 200; ++step) EXPECT_EQ(watch.see_step(step, one_idle), Texts{});
}

TEST(IdleExpert, WhatHelpsIsByTheConfiguration) {
  const auto told = [](const auto& change) {
    RouterWatchOptions options = two_layers();
    options.idle_expert_steps = 1;
    change(options);
    return RouterWatch(options).see_step(1, one_idle).at(0);
  };
  EXPECT_TRUE(
      mentions(told([](auto& o) { o.router.aux_loss_coef = 0; }),
               {"No loss balances this run: set router.aux_loss_coef (0.01 is usual), or router.bias_update_rate"}));
  EXPECT_TRUE(mentions(told([](auto& o) { o.router.aux_loss_coef_by_layer = {0, 0}; }), {"No loss balances this run"}));
  EXPECT_TRUE(mentions(told([](auto& o) {
                         o.router.aux_loss_coef_by_layer = {0, 1};
                       }),
                       {"Raise router.aux_loss_coef, or set router.bias_update_rate"}));
  EXPECT_TRUE(mentions(told([](auto& o) { o.router.target_max_vio = 0.5; }),
                       {"Lower router.target_max_vio (0.5 now), or put"}));
  EXPECT_TRUE(mentions(told([](auto& o) { o.router.bias_update_rate = 0.001; }),
                       {"Raise router.bias_update_rate (0.001 now), which", "or give it time"}));
  EXPECT_TRUE(mentions(told([](auto& o) {
                         o.trained_gates = {true, false};
                       }),
                       {"Train these gates (router.frozen, train.freeze: some are not), or set"}));
  EXPECT_TRUE(mentions(told([](auto& o) { o.trained_gates = {false, true}; }), {"Raise router.aux_loss_coef"}));
}

// ---- routers that are certain -----------------------------------------------------------------------------------------

TEST(CertainRouter, IsToldOfAfterTenRowsInARowAndOnce) {
  RouterWatch watch(two_layers());
  Texts told;
  EXPECT_EQ(telling_rows(watch, 40, row_of(100, {0.5, 0.0125}), &told), Numbers{10});
  EXPECT_EQ(
      told,
      Texts{"step 109: the router of layer 1 is certain: a token's entropy has been below 0.02 of ln E for 10 rows "
            "(0.013 in layer 1), so one expert has all the weight and hardly any gradient reaches the router. Set "
            "router.z_loss_coef (1e-3 is usual), which holds its logits down, or lower optimizer.learning_rate, and go "
            "on from a checkpoint of before"});
}

TEST(CertainRouter, OneRowAboveBeginsTheCountAgainAndOneWithoutANumberDoesNot) {
  RouterWatch watch(two_layers());
  EXPECT_EQ(telling_rows(watch, 9, row_of(1, {0.01, 0.5})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 1, row_of(10, {0.02, 0.5})), Numbers{}) << "not below";
  EXPECT_EQ(telling_rows(watch, 9, row_of(11, {0.01, 0.5})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 20, row_of(20, {nan, nan})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 20, row_of(40, {})), Numbers{}) << "a row without the measure";
  EXPECT_EQ(telling_rows(watch, 1, row_of(60, {0.01, 0.5})), Numbers{1});
}

TEST(CertainRouter, AllThatAreSoAreNamedAndTheZLossThatIsThere) {
  RouterWatchOptions options = two_layers();
  options.router.z_loss_coef = 0.001;
  RouterWatch watch(options);
  Texts told;
  telling_rows(watch, 10, row_of(1, {0.002, 0.001}), &told);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(mentions(
      told[0], {"the router of layers 0, 1 is", "(0.001 in layer 1)", "Raise router.z_loss_coef (0.001 now), which"}))
      << told[0];
}

TEST(CertainRouter, IsNotToldOfWhereTheEntropyDoesNotSayIt) {
  const auto quiet = [](const auto& change) {
    RouterWatchOptions options = two_layers();
    change(options);
    RouterWatch watch(options);
    return telling_rows(watch, 50, row_of(1, {0, 0})).empty();
  };
  EXPECT_FALSE(quiet([](auto&) {}));
  EXPECT_TRUE(quiet([](auto& o) { o.model.scoring_func = Score::sigmoid; }));
  EXPECT_TRUE(quiet([](auto& o) { o.model.num_experts_per_tok = 4; })) << "E = K";
  EXPECT_TRUE(quiet([](auto& o) { o.model.num_experts_per_tok = o.model.num_local_experts = 1; }));
  EXPECT_TRUE(quiet([](auto& o) { o.trained_gates = {false, false}; }));
  EXPECT_FALSE(quiet([](auto& o) { o.trained_gates = {false, true}; }));
  EXPECT_FALSE(quiet([](auto& o) { o.model.num_experts_per_tok = 1; }));
}

// ---- a balance loss that outweighs the language model -----------------------------------------------------------------

StepMetrics heavy(std::int64_t step) { return row_of(step, {}, {0.5, 0.5}, {0.25, 0.75}); }

TEST(HeavyBalance, IsToldOfAfterTenRowsInARowAndOnce) {
  RouterWatch watch(two_layers());
  Texts told;
  EXPECT_EQ(telling_rows(watch, 40, heavy(101), &told), Numbers{10});
  EXPECT_EQ(
      told,
      Texts{
          "step 110: the balance loss outweighs the language model at the gate of layer 1: the norm of its part of the "
          "gradient has been the larger for 10 rows (0.75 beside 0.5 in layer 1, coefficient 0.01). Lower "
          "router.aux_loss_coef (0.01 now), or put router.bias_update_rate in its place, which has no gradient"});
}

TEST(HeavyBalance, TheBeginningOfARunDoesNotCount) {
  RouterWatch watch(two_layers());
  EXPECT_EQ(telling_rows(watch, 200, heavy(1)), Numbers{110});
  RouterWatchOptions options = two_layers();
  options.warmup_steps = 150;
  RouterWatch warmed(options);
  EXPECT_EQ(telling_rows(warmed, 200, heavy(1)), Numbers{160});
}

TEST(HeavyBalance, ARowThatIsAsHeavyBeginsTheCountAgainAndOneWithoutANumberDoesNot) {
  RouterWatch watch(two_layers());
  EXPECT_EQ(telling_rows(watch, 9, heavy(101)), Numbers{});
  EXPECT_EQ(telling_rows(watch, 1, row_of(110, {}, {0.5, 0.5}, {0.5, 0.5})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 9, heavy(111)), Numbers{});
  EXPECT_EQ(telling_rows(watch, 20, row_of(120, {}, {nan, nan}, {nan, nan})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 20, row_of(140, {}, {0, 0}, {1, 1})), Numbers{}) << "nothing to be held against";
  EXPECT_EQ(telling_rows(watch, 20, row_of(160, {})), Numbers{});
  EXPECT_EQ(telling_rows(watch, 1, heavy(180)), Numbers{1});
}

TEST(HeavyBalance, IsNotToldOfWhereTheLanguageModelTrainsNoGate) {
  const auto quiet = [](const auto& change, const StepMetrics& row = heavy(101)) {
    RouterWatchOptions options = two_layers();
    change(options);
    RouterWatch watch(options);
    return telling_rows(watch, 50, row).empty();
  };
  EXPECT_TRUE(quiet([](auto& o) { o.trained_gates = {true, false}; }));
  EXPECT_FALSE(quiet([](auto& o) { o.trained_gates = {false, true}; }));
  EXPECT_TRUE(quiet([](auto&) {}, row_of(101, {}, {0, 0}, {1, 1})));
  EXPECT_TRUE(quiet([](auto& o) { o.model.num_experts_per_tok = 1; })) << "its weight is always 1";
  EXPECT_FALSE(quiet([](auto& o) {
    o.model.num_experts_per_tok = 1;
    o.model.norm_topk_prob = false;
  }));
}

TEST(HeavyBalance, WhatHelpsIsByTheConfiguration) {
  const auto told = [](const auto& change, StepMetrics row = heavy(101)) {
    RouterWatchOptions options = two_layers();
    change(options);
    RouterWatch watch(options);
    Texts texts;
    telling_rows(watch, 10, std::move(row), &texts);
    return texts.at(0);
  };
  EXPECT_TRUE(mentions(told([](auto& o) { o.router.target_max_vio = 0.25; }),
                       {"Raise router.target_max_vio (0.25 now), which"}));
  EXPECT_TRUE(mentions(told([](auto& o) { o.router.aux_loss_schedule.type = AuxLossScheduleType::linear; }),
                       {"Lower router.aux_loss_coef, or have router.aux_loss_schedule lower it sooner, or"}));
  StepMetrics listed = row_of(101, {}, {0.25, 0.5}, {0.75, 0.75});
  listed.aux_loss_coef = {0.5, 0.125};
  EXPECT_TRUE(mentions(told(
                           [](auto& o) {
                             o.router.aux_loss_coef_by_layer = {0.5, 0.125};
                           },
                           listed),
                       {"at the gate of layers 0, 1:", "(0.75 beside 0.25 in layer 0, coefficient 0.5)",
                        "Lower router.aux_loss_coef, or put"}));
}

TEST(RouterWatch, EachKindIsToldOfByItself) {
  RouterWatch watch(two_layers());
  Texts told;
  EXPECT_EQ(telling_rows(watch, 30, row_of(101, {0, 0}, {0.5, 0.5}, {1, 1}), &told), Numbers{10});
  ASSERT_EQ(told.size(), 2u);
  for (std::int64_t step = 1; step <= 4; ++step) EXPECT_EQ(watch.see_step(step, one_idle), Texts{});
  EXPECT_EQ(watch.see_step(5, one_idle).size(), 1u);
}

}  // namespace
}  // namespace smoe
