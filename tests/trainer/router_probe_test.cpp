// How many assignments of a fixed batch change from row to row.
#include "trainer/router_probe.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tests/trainer/training_fixture.h"
#include "trainer/sample_columns.h"

namespace smoe {
namespace {

class Probe : public TrainingTest {
 protected:
  TrainerConfig probed(const std::string& output) const {
    TrainerConfig c = config(output);
    c.log.probe_sequences = 3;
    return c;
  }
  std::vector<double> shares(const std::string& output) const {
    std::vector<double> found;
    for (const StepMetrics& row : metrics(output).steps)
      found.insert(found.end(), row.by_layer.changed.begin(), row.by_layer.changed.end());
    return found;
  }
};

// Rows of the gates are traded, so that every token's experts are renamed.
TEST_F(Probe, CountsTheAssignmentsThatAreNew) {
  const TrainerConfig c = probed("");
  TrainingParts parts(make_cpu_backend(1), c.model, c, mesh(), {});
  std::vector<Tensor> gates;
  parts.model->parameters().initialize(*parts.backend, 1, [&](const Parameter& p, std::span<float>) {
    if (p.name.find(".gate.weight") != std::string::npos) gates.push_back(p.value);
  });
  const auto dataset = std::make_shared<const Dataset>(root() / "held-out", 16, true);
  RouterProbe probe(dataset, 4, 3);
  const auto changed = [&] { return probe.changed(*parts.model, parts.step->context()); };
  const auto trade = [](const Tensor& gate, std::int64_t a, std::int64_t b) {
    for (std::int64_t i = 0; i < gate.dim(1); ++i)
      std::swap(gate.f32()[a * gate.dim(1) + i], gate.f32()[b * gate.dim(1) + i]);
  };
  EXPECT_EQ(changed(), std::vector<double>{}) << "nothing to hold the first against";
  EXPECT_EQ(changed(), std::vector<double>(2, 0.0));

  // The last layer's: what its tokens are does not change with it. What changes is what chose 0 without 1, or 1 without 0.
  double renamed = 0, all = 0;
  Context context = parts.step->context();
  for (std::int64_t s = 0; s < 4; ++s) {
    SampleColumns columns;
    columns.read(*dataset, s, 1, 16);
    TokenBatch batch = make_token_batch(*parts.backend, context.activations, 1, 16, columns.ids, columns.targets,
                                        columns.document_start);
    Mixtral::Saved saved;
    parts.model->forward(context, batch, Keep::all, saved);
    const Tensor experts = saved.layers[1].router.experts;
    for (std::int64_t t = 0; t < 16; ++t) {
      const std::set<std::int32_t> chosen(experts.i32() + 2 * t, experts.i32() + 2 * t + 2);
      renamed += chosen.count(0) != chosen.count(1) ? 1 : 0;
      all += 2;
    }
  }
  ASSERT_GT(renamed, 0);
  trade(gates[1], 0, 1);
  EXPECT_EQ(changed(), (std::vector<double>{0, renamed / all}));
  EXPECT_EQ(changed(), std::vector<double>(2, 0.0));
  trade(gates[1], 0, 1);
  EXPECT_EQ(changed(), (std::vector<double>{0, renamed / all}));
}

TEST_F(Probe, IsInEveryRowAndChangesNothingElse) {
  run(probed("probed"));
  TrainerConfig without = probed("without");
  without.log.probe_sequences = 0;
  run(without);
  EXPECT_EQ(state_hash("probed", 20), state_hash("without", 20));
  EXPECT_EQ(results("probed"), results("without"));
  EXPECT_EQ(shares("without"), std::vector<double>{});
  const std::vector<double> found = shares("probed");
  ASSERT_EQ(found.size(), 2u * 20);
  double sum = 0;
  for (const double share : found) {
    EXPECT_TRUE(share >= 0 && share <= 1) << share;
    sum += share;
  }
  EXPECT_GT(sum, 0);
}

TEST_F(Probe, FollowsWhatIsLearned) {
  TrainerConfig c = probed("still");
  c.optimizer.learning_rate = 0;
  run(c);
  for (const double share : shares("still")) EXPECT_EQ(share, 0);
}

TEST_F(Probe, ResumedRowsAreThoseOfTheWholeRun) {
  TrainerConfig c = probed("run");
  c.schedule.type = ScheduleType::constant;
  run(c);
  const std::vector<double> whole = shares("run");
  c.train.output_dir = (root() / "halves").string();
  c.train.steps = 10;
  run(c);
  c.train.steps = 20;
  run(c);
  EXPECT_EQ(shares("halves"), whole);
}

TEST_F(Probe, IsOfInference) {
  TrainerConfig c = probed("noisy");
  c.optimizer.learning_rate = 0;
  c.router.jitter_noise = 0.5;
  c.router.capacity_factor = 0.5;
  run(c);
  for (const double share : shares("noisy")) EXPECT_EQ(share, 0);
}

TEST_F(Probe, FollowsASelectionBias) {
  TrainerConfig c = probed("biased");
  c.optimizer.learning_rate = 0;
  c.router.bias_update_rate = 0.05;
  run(c);
  double sum = 0;
  for (const double share : shares("biased")) sum += share;
  EXPECT_GT(sum, 0);
}

TEST(ProbeSequences, AreWhatOnePartIn120OfARanksWorkAffords) {
  EXPECT_EQ(probe_sequences(10, 4, 1), 1);
  EXPECT_EQ(probe_sequences(10, 3, 1), 0);
  EXPECT_EQ(probe_sequences(10, 64, 1), 16);
  EXPECT_EQ(probe_sequences(1, 40, 1), 1);
  EXPECT_EQ(probe_sequences(100, 1024, 1), 32);
  EXPECT_EQ(probe_sequences(10, 8, 2), 2) << "one of each rank";
  EXPECT_EQ(probe_sequences(10, 8, 8), 0) << "a rank has one sequence a step";
  EXPECT_EQ(probe_sequences(40, 8, 8), 8);
  EXPECT_EQ(probe_sequences(100, 1024, 64), 32);
  EXPECT_EQ(probe_sequences(1000000000, 16777216, 1), 32) << "the product of both does not fit";
}

}  // namespace
}  // namespace smoe
