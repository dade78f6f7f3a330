// Whole runs at several layouts: one interrupted and resumed at another layout goes on with the numbers of the
// uninterrupted run, over epoch boundaries and with experts split; at the same layout, with its bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "data/files/tensor_directory.h"
#include "parallel/comm/agreement.h"
#include "tests/ranks/test_session.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/record/metrics.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

class LayoutRuns : public ::testing::Test {
 protected:
  LayoutRuns() {
    if (is_root()) test::write_tiny_sources(own_.path());
    root_ = broadcast_text(world(), own_.path().string(), 0, "test.root");
  }
  ~LayoutRuns() override { world().barrier("test.over"); }  // before the root removes the directory

  static bool is_root() { return test_session().rank() == 0; }
  Communicator& world() const { return everyone_.group(Axis::world); }

  TrainerConfig config(const std::string& output, const Layout& layout, std::int64_t steps) const {
    TrainerConfig c = test::tiny_config(root_, output);
    c.model.num_attention_heads = c.model.num_key_value_heads = c.model.num_local_experts = 8;
    c.optimizer.epsilon = 1e-5;
    c.schedule.type = ScheduleType::constant;  // that of a run of 5 steps is that of one of 10
    c.train.steps = steps;
    c.train.freeze = freeze_;
    c.train.precision = precision_;
    c.optimizer.learning_rate = learning_rate_;
    c.train.global_batch_size = 16;
    c.train.micro_batch_size = 8 / layout.dp();
    c.checkpoint.interval = 5;
    c.eval.interval = 5;
    c.eval.batches = 3;
    return c;
  }

  // All ranks of the job call it; those of the layout train.
  void train(const std::string& output, const Layout& layout, std::int64_t steps) {
    if (test_session().rank() < layout.ranks) {
      const Mesh mesh = Mesh::over(test_session(), layout);
      EXPECT_EQ(Trainer(assemble(config(output, layout, steps), mesh, make_cpu_backend(1))).run().end,
                RunEnd::complete);
    }
    world().barrier("test.trained");
  }
  MetricsLog metrics(const std::string& output) const { return read_metrics(root_ / output / "metrics.jsonl"); }
  std::string state_hash(const std::string& output, std::int64_t step) const {
    const fs::path checkpoint = root_ / output / "checkpoints" / checkpoint_name(step);
    return sha256_file(checkpoint / "model" / "model.safetensors") +
           sha256_file(checkpoint / "optimizer" / "model.safetensors");
  }

  fs::path root_;
  std::vector<std::string> freeze_;
  PrecisionChoice precision_ = PrecisionChoice::fp32;
  double learning_rate_ = 1e-3;

 private:
  test::ScratchDir own_;
  Mesh everyone_ = Mesh::over(test_session(), {.ranks = test_session().size()});
};

TEST_F(LayoutRuns, AnyLayoutGoesOnFromAnyOthersCheckpoint) {
  const int ranks = test_session().size();
  const std::vector<std::pair<Layout, Layout>> pairs = {
      {{.ranks = 1}, {.ranks = ranks, .ep = ranks}},
      {{.ranks = ranks, .ep = ranks}, {.ranks = 1}},
      {{.ranks = ranks}, {.ranks = ranks, .tp = ranks}},
      {{.ranks = ranks, .tp = ranks}, {.ranks = ranks, .ep = 2}},
      {{.ranks = ranks, .tp = 2, .ep = 2}, {.ranks = ranks, .tp = 2, .ep = ranks}},
      {{.ranks = ranks, .tp = 2, .ep = ranks}, {.ranks = ranks / 2, .ep = ranks / 2}},
      {{.ranks = ranks / 2, .tp = ranks / 2}, {.ranks = ranks, .tp = 2, .ep = 2}},
      {{.ranks = 2, .ep = 2}, {.ranks = 2, .tp = 2}},
      {{.ranks = 2, .tp = 2, .ep = 2}, {.ranks = ranks}},
      {{.ranks = 1}, {.ranks = ranks, .tp = ranks, .ep = ranks}},
      {{.ranks = ranks, .tp = ranks, .ep = ranks}, {.ranks = 2}},
      {{.ranks = ranks, .ep = 2}, {.ranks = ranks, .ep = 2}},
  };
  train("whole", {.ranks = 1}, 10);
  const MetricsLog whole = metrics("whole");
  ASSERT_EQ(whole.steps.size(), 10u);
  EXPECT_LT(whole.steps.back().lm_loss, whole.steps.front().lm_loss)
      << "equal numbers prove little where nothing is learned";
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto& [first, second] = pairs[i];
    SCOPED_TRACE(std::to_string(first.ranks) + " ranks, " + first.to_string() + ", then " +
                 std::to_string(second.ranks) + " ranks, " + second.to_string());
    const std::string output = "pair-" + std::to_string(i);
    train(output, first, 5);
    train(output, second, 10);
    const MetricsLog resumed = metrics(output);
    ASSERT_EQ(resumed.steps.size(), 10u);
    for (std::size_t s = 0; s < 10; ++s) {
      EXPECT_NEAR(resumed.steps[s].lm_loss, whole.steps[s].lm_loss, 1e-5 * whole.steps[s].lm_loss) << "step " << s + 1;
      EXPECT_NEAR(resumed.steps[s].aux_loss, whole.steps[s].aux_loss, 1e-5 * whole.steps[s].aux_loss)
          << "step " << s + 1;
      EXPECT_NEAR(resumed.steps[s].grad_norm, whole.steps[s].grad_norm, 1e-5 * whole.steps[s].grad_norm)
          << "step " << s + 1;
      EXPECT_EQ(resumed.steps[s].tokens, whole.steps[s].tokens);
    }
  }
}

TEST_F(LayoutRuns, ResumedAtTheSameLayoutTheBitsAreTheSame) {
  const int ranks = test_session().size();
  for (const Layout& layout : {Layout{.ranks = ranks, .ep = ranks}, Layout{.ranks = ranks, .tp = 2, .ep = ranks},
                               Layout{.ranks = ranks, .tp = ranks, .ep = 2}}) {
    SCOPED_TRACE(layout.to_string());
    const std::string name = layout.to_string();
    train(name + "-whole", layout, 10);
    train(name + "-halves", layout, 5);
    train(name + "-halves", layout, 10);
    EXPECT_EQ(state_hash(name + "-whole", 10), state_hash(name + "-halves", 10));
    const MetricsLog whole = metrics(name + "-whole"), halves = metrics(name + "-halves");
    ASSERT_EQ(whole.steps.size(), halves.steps.size());
    for (std::size_t s = 0; s < whole.steps.size(); ++s) EXPECT_EQ(whole.steps[s].lm_loss, halves.steps[s].lm_loss);
  }
}

TEST_F(LayoutRuns, AFrozenRunGoesOnAtAnyLayout) {
  const int ranks = test_session().size();
  freeze_ = {"*.experts.*", "*.gate.weight", "model.embed_tokens.weight"};
  train("whole", {.ranks = 1}, 10);
  const MetricsLog whole = metrics("whole");
  ASSERT_EQ(whole.steps.size(), 10u);
  const auto expert_of = [&](const std::string& output, std::int64_t step) {
    const TensorDirectory model(root_ / output / "checkpoints" / checkpoint_name(step) / "model");
    const auto bytes = model.raw("model.layers.1.block_sparse_moe.experts.5.w2.weight");
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  const std::vector<std::pair<Layout, Layout>> pairs = {
      {{.ranks = ranks, .ep = ranks}, {.ranks = ranks, .tp = ranks}},
      {{.ranks = ranks, .tp = 2, .ep = 2}, {.ranks = 1}},
      {{.ranks = ranks, .tp = 2, .ep = ranks}, {.ranks = ranks, .tp = 2, .ep = ranks}}};
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::string output = "frozen-" + std::to_string(i);
    SCOPED_TRACE(pairs[i].first.to_string() + ", then " + pairs[i].second.to_string());
    train(output, pairs[i].first, 5);
    train(output, pairs[i].second, 10);
    const MetricsLog resumed = metrics(output);
    ASSERT_EQ(resumed.steps.size(), 10u);
    for (std::size_t s = 0; s < 10; ++s) {
      EXPECT_NEAR(resumed.steps[s].lm_loss, whole.steps[s].lm_loss, 1e-5 * whole.steps[s].lm_loss) << "step " << s + 1;
      EXPECT_NEAR(resumed.steps[s].grad_norm, whole.steps[s].grad_norm, 1e-5 * whole.steps[s].grad_norm)
          << "step " << s + 1;
    }
    for (const std::int64_t step : {5, 10})
      EXPECT_EQ(expert_of(output, step), expert_of("whole", 10)) << "its initial bits";
  }
  train("same-whole", pairs[2].first, 10);
  EXPECT_EQ(state_hash("same-whole", 10), state_hash("frozen-2", 10));
}

// In bf16: masters are read at any layout as they were written at any other, and the same layout gives the same bits.
TEST_F(LayoutRuns, MastersOfBf16GoOnAtAnyLayout) {
  const int ranks = test_session().size();
  precision_ = PrecisionChoice::bf16;
  const auto bytes_of = [&](const std::string& output, std::int64_t step, const char* folder,
                            const std::string& prefix) {
    const TensorDirectory files(root_ / output / "checkpoints" / checkpoint_name(step) / folder);
    std::vector<std::byte> all;
    for (const std::string& name : files.names())
      if (name.starts_with(prefix)) all.insert(all.end(), files.raw(name).begin(), files.raw(name).end());
    return all;
  };
  const std::vector<std::pair<Layout, Layout>> pairs = {{{.ranks = ranks, .ep = ranks}, {.ranks = ranks, .tp = ranks}},
                                                        {{.ranks = ranks, .tp = 2, .ep = 2}, {.ranks = 1}},
                                                        {{.ranks = 1}, {.ranks = ranks, .tp = 2, .ep = ranks}},
                                                        {{.ranks = ranks}, {.ranks = ranks / 2, .ep = 2}}};
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::string output = "halves-" + std::to_string(i);
    SCOPED_TRACE(pairs[i].first.to_string() + ", then " + pairs[i].second.to_string());
    learning_rate_ = 1e-3;
    train(output, pairs[i].first, 5);
    learning_rate_ = 0;  // a step that moves no weight
    train(output, pairs[i].second, 6);
    EXPECT_EQ(bytes_of(output, 6, "optimizer", "master."), bytes_of(output, 5, "optimizer", "master."));
    EXPECT_FALSE(bytes_of(output, 6, "optimizer", "master.").empty());
    EXPECT_EQ(bytes_of(output, 6, "model", ""), bytes_of(output, 5, "model", ""));
    EXPECT_NE(bytes_of(output, 6, "optimizer", "exp_avg."), bytes_of(output, 5, "optimizer", "exp_avg."));
  }
  learning_rate_ = 1e-3;
  const Layout layout{.ranks = ranks, .tp = 2, .ep = ranks};
  train("whole", layout, 10);
  train("in-two", layout, 5);
  train("in-two", layout, 10);
  EXPECT_EQ(state_hash("whole", 10), state_hash("in-two", 10));
}

// What is not finite on one rank is refused by all: nobody's weights change, and the run ends with one message.
TEST_F(LayoutRuns, AStepThatOneRankCannotFinishChangesNoWeightOnAny) {
  const int ranks = test_session().size();
  const Layout layout{.ranks = ranks, .tp = 2, .ep = ranks};
  const Mesh mesh = Mesh::over(test_session(), layout);
  auto c = config("poisoned", layout, 10);
  c.train.max_skipped_steps = 3;
  Trainer trainer(assemble(c, mesh, make_cpu_backend(1)));
  if (test_session().rank() == 1)
    trainer.model().parameters().find("model.norm.weight")->value.f32()[0] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::vector<float>> before;
  for (const FlatBuffer& flat : trainer.model().parameters().flat_buffers())
    before.emplace_back(flat.values.f32(), flat.values.f32() + flat.values.elements());
  try {
    trainer.run();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const SharedFailure& failure) {
    EXPECT_TRUE(test::mentions(failure.what(), {"3 steps in a row", "max_skipped_steps"}));
  }
  std::size_t i = 0;
  for (const FlatBuffer& flat : trainer.model().parameters().flat_buffers())
    EXPECT_EQ(std::memcmp(before[i++].data(), flat.values.raw(), flat.values.bytes()), 0);
  EXPECT_EQ(trainer.state().updates, 0);
  EXPECT_EQ(trainer.state().skipped, 3);
}

// What stands out is refused by all ranks of every layout, and by none that did not ask.
TEST_F(LayoutRuns, AStepThatLooksOddIsRefusedByAll) {
  if (is_root()) test::write_corpus_with_a_spike(root_ / "spike", 42, 16 * 16, 40, 40);
  world().barrier("test.spike");
  const int ranks = test_session().size();
  for (const Layout& layout :
       {Layout{.ranks = 1}, Layout{.ranks = ranks, .ep = ranks}, Layout{.ranks = ranks, .tp = 2, .ep = ranks}}) {
    if (test_session().rank() < layout.ranks) {
      SCOPED_TRACE(layout.to_string());
      const Mesh mesh = Mesh::over(test_session(), layout);
      auto c = config("", layout, 42);
      c.train.output_dir.clear();
      c.data.train = {{.path = (root_ / "spike").string()}};
      c.data.eval.clear();
      c.data.shuffle = false;
      c.optimizer.learning_rate = 1e-2;
      c.train.outlier_deviations = 4;
      const TrainingState state = Trainer(assemble(c, mesh, make_cpu_backend(1))).run().state;
      EXPECT_EQ(state.skipped, 1);
      EXPECT_EQ(state.updates, 41);
      EXPECT_EQ(state.skipped_in_a_row, 0);
    }
    world().barrier("test.trained");
  }
}

// Held-out loss is of the same samples whatever the layout, also where they do not divide over the ranks.
TEST_F(LayoutRuns, EvaluationDoesNotDependOnTheLayout) {
  const auto evaluated = [&](const std::string& output, const Layout& layout, std::int64_t micro) {
    if (test_session().rank() < layout.ranks) {
      const Mesh mesh = Mesh::over(test_session(), layout);
      auto c = config(output, layout, 1);
      c.train.micro_batch_size = micro;
      c.eval.batches = 7;
      EXPECT_EQ(Trainer(assemble(c, mesh, make_cpu_backend(1))).run().end, RunEnd::complete);
    }
    world().barrier("test.trained");
    return metrics(output).evals.front();
  };
  const int ranks = test_session().size();
  const EvalMetrics one = evaluated("one", {.ranks = 1}, 1);
  EXPECT_GT(one.tokens, 0);
  for (const Layout& layout : {Layout{.ranks = ranks, .ep = ranks}, Layout{.ranks = ranks, .tp = 2, .ep = ranks},
                               Layout{.ranks = ranks, .tp = ranks}}) {
    const EvalMetrics many = evaluated(layout.to_string(), layout, 1);
    EXPECT_EQ(many.tokens, one.tokens) << layout.to_string();
    EXPECT_NEAR(many.loss, one.loss, 1e-5 * one.loss) << layout.to_string();
  }
}

}  // namespace
}  // namespace smoe
