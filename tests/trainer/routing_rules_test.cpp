// Routing that is not Mixtral's through whole runs: scores, weights, noise and capacity are what the configuration says, resume bit for
// bit, and are found again in what is exported.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "data/files/safetensors.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {
namespace {

class RoutingRules : public TrainingTest {
 protected:
  TrainerConfig short_run(const std::string& output) const {
    TrainerConfig c = config(output);
    c.train.steps = 6;
    c.checkpoint.interval = c.eval.interval = 3;
    c.optimizer.learning_rate = 1e-2;
    return c;
  }
  double last_loss(const std::string& output) const { return metrics(output).steps.back().lm_loss; }
  ModelConfig exported(const std::string& output) const {
    return read_hf_config(checkpoint(output, 6) / "model").model;
  }
};

TEST_F(RoutingRules, EachChangesTheRunAndIsExportedWhereItIsTheModels) {
  run(short_run("mixtral"));
  EXPECT_TRUE(exported("mixtral").routes_as_mixtral());
  EXPECT_EQ(test::slurp(checkpoint("mixtral", 6) / "model" / "config.json").find("norm_topk_prob"), std::string::npos);
  const auto differs = [&](const std::string& output, auto change) {
    TrainerConfig c = short_run(output);
    change(c);
    run(c);
    EXPECT_NE(last_loss(output), last_loss("mixtral")) << output;
    EXPECT_EQ(exported(output).routing_rule().score, c.model.scoring_func) << output;
    EXPECT_EQ(exported(output).norm_topk_prob, c.model.norm_topk_prob) << output;
    EXPECT_EQ(exported(output).routed_scaling_factor, c.model.routed_scaling_factor) << output;
    const bool said = log_of(output).find("transformers' Mixtral knows none of them") != std::string::npos;
    EXPECT_EQ(said, !c.model.routes_as_mixtral()) << output;
  };
  differs("sigmoid", [](TrainerConfig& c) { c.model.scoring_func = Score::sigmoid; });
  differs("scores", [](TrainerConfig& c) { c.model.norm_topk_prob = false; });
  differs("scaled", [](TrainerConfig& c) { c.model.routed_scaling_factor = 2.5; });
  differs("jittered", [](TrainerConfig& c) { c.router.jitter_noise = 0.3; });
  differs("capacity", [](TrainerConfig& c) { c.router.capacity_factor = 0.5; });
}

TEST_F(RoutingRules, ResumeBitForBit) {
  const auto changed = [&](const std::string& output) {
    TrainerConfig c = short_run(output);
    c.model.scoring_func = Score::sigmoid;
    c.model.routed_scaling_factor = 1.5;
    c.router.jitter_noise = 0.2;
    c.router.capacity_factor = 0.75;
    c.router.capacity_order = CapacityOrder::probability;
    return c;
  };
  run(changed("whole"));
  TrainerConfig half = changed("halves");
  half.train.steps = 3;
  half.schedule.type = ScheduleType::constant;
  TrainerConfig all = changed("halves");
  all.schedule.type = ScheduleType::constant;
  TrainerConfig at_once = changed("at-once");
  at_once.schedule.type = ScheduleType::constant;
  run(half);
  run(all);
  run(at_once);
  EXPECT_EQ(state_hash("halves", 6), state_hash("at-once", 6));
  EXPECT_NE(state_hash("halves", 6), state_hash("whole", 6));
}

// Of one token more than half are dropped in training; evaluation is the same as without a capacity, at the same weights.
TEST_F(RoutingRules, EvaluationIsDropless) {
  TrainerConfig c = short_run("dropping");
  c.train.steps = 1;
  c.optimizer.learning_rate = 0;
  c.eval.interval = 1;
  c.router.capacity_factor = 0.25;
  run(c);
  TrainerConfig dropless = short_run("dropless");
  dropless.train.steps = 1;
  dropless.optimizer.learning_rate = 0;
  dropless.eval.interval = 1;
  run(dropless);
  EXPECT_NE(last_loss("dropping"), last_loss("dropless"));
  EXPECT_EQ(metrics("dropping").evals.back().loss, metrics("dropless").evals.back().loss);
}

// The one expert's weight is always 1 where it is renormalised: no gradient of the language-model loss reaches the router.
TEST_F(RoutingRules, OneExpertATokenLearnsWhereItsWeightIsItsScore) {
  const auto gate_moves = [&](bool renormalised) {
    TrainerConfig c = short_run(renormalised ? "renormalised" : "learns");
    c.model.num_experts_per_tok = 1;
    c.model.norm_topk_prob = renormalised;
    c.router.aux_loss_coef = 0;
    c.router.z_loss_coef = 0;
    c.train.steps = 1;
    c.log.dump_steps = {1};
    run(c);
    SafetensorsReader dump((root() / c.train.output_dir / "dumps" / "step-000001.safetensors").string());
    const std::string name = "grad.model.layers.0.block_sparse_moe.gate.weight";
    std::vector<float> gradient(static_cast<std::size_t>(dump.info(name).elements()));
    dump.read_f32(name, gradient.data(), 0, static_cast<std::int64_t>(gradient.size()));
    const bool warned =
        log_of(renormalised ? "renormalised" : "learns").find("its weight is always 1") != std::string::npos;
    EXPECT_EQ(warned, renormalised);
    return std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; });
  };
  EXPECT_FALSE(gate_moves(true));
  EXPECT_TRUE(gate_moves(false));
}

// A dense model has no choice to learn, and is not warned about one.
TEST_F(RoutingRules, OneExpertInAllIsNotWarnedOf) {
  TrainerConfig c = short_run("dense");
  c.model.num_local_experts = 1;
  c.model.num_experts_per_tok = 1;
  c.train.steps = 1;
  run(c);
  EXPECT_EQ(log_of("dense").find("its weight is always 1"), std::string::npos);
}

TEST_F(RoutingRules, AnotherRuleThanTheCheckpointsIsAnotherModel) {
  TrainerConfig c = short_run("run");
  c.train.steps = 3;
  run(c);
  c.train.steps = 6;
  c.model.scoring_func = Score::sigmoid;
  test::expect_refused([&] { run(c); }, {"model.scoring_func: the checkpoint has softmax, the configuration sigmoid"});
}

}  // namespace
}  // namespace smoe
