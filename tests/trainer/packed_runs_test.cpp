// Runs on whole documents (data.packing: best_fit), and runs whose length is told in epochs.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "tests/trainer/training_fixture.h"
#include "trainer/corpus.h"
#include "trainer/evaluate.h"
#include "trainer/inference.h"
#include "trainer/router_probe.h"

namespace smoe {
namespace {

class PackedRun : public TrainingTest {
 protected:
  TrainerConfig packed_config(const std::string& output) const {
    auto c = config(output);
    c.data.packing = Packing::best_fit;
    c.data.sequence_length = 64;  // documents have 21 to 60 ids
    c.train.steps = 6;
    c.train.global_batch_size = 4;
    c.train.micro_batch_size = 2;
    c.schedule.type = ScheduleType::constant;
    c.checkpoint.interval = 3;
    return c;
  }
  Dataset packed_set(const std::string& name, std::int64_t length = 64) const {
    return Dataset((root() / name).string(), length, true, {}, Tail::drop, nullptr, Packing::best_fit);
  }
};

TEST_F(PackedRun, CountsNoPaddingAndSaysHowFullItsSequencesAre) {
  const TrainerConfig c = packed_config("run");
  ASSERT_EQ(train(c), 0);
  const auto corpus = open_corpus(c.data, {});
  const Sampler sampler = make_sampler(corpus->train, 1, true, 4);
  std::int64_t tokens = 0, room = 0;
  for (std::int64_t step = 1; step <= 6; ++step)
    for (const SampleRef ref : sampler.batch(step)) {
      tokens += corpus->train[static_cast<std::size_t>(ref.source)].dataset->used(ref.sample);
      room += 64;
    }
  const MetricsLog rows = metrics("run");
  EXPECT_EQ(rows.steps.back().tokens, tokens);
  EXPECT_LT(tokens, room);
  EXPECT_EQ(rows.steps.front().targets, rows.steps.front().tokens) << "every input has a target in these documents";
  for (const auto& layer : rows.steps.back().expert_load)
    EXPECT_NEAR(std::accumulate(layer.begin(), layer.end(), 0.0), 1.0, 1e-6);
  const std::string log = log_of("run");
  EXPECT_TRUE(mentions(log, {"alpha: 12 whole documents in ", "sequences of 64", "% of whose positions they fill",
                             "beta: 7 whole documents in "}));
}

TEST_F(PackedRun, ResumesToTheSameBits) {
  ASSERT_EQ(train(packed_config("whole")), 0);
  auto half = packed_config("half");
  half.train.steps = 3;
  ASSERT_EQ(train(half), 0);
  ASSERT_EQ(train(packed_config("half")), 0);
  EXPECT_EQ(state_hash("half", 6), state_hash("whole", 6));
  EXPECT_EQ(metrics("half").steps.back().tokens, metrics("whole").steps.back().tokens);
  // Another way to cut the data is another order of it.
  auto stream = packed_config("half");
  stream.data.packing = Packing::stream;
  stream.train.steps = 7;
  ASSERT_EQ(train(stream), 0);
  EXPECT_TRUE(mentions(log_of("half"), {"the data is not what the checkpoint was trained on", "packed by best fit"}));
}

// Every target once, and of each document the loss that it has by itself.
TEST_F(PackedRun, EvaluatesEachDocumentAsIfItWereAlone) {
  ASSERT_EQ(train(packed_config("run")), 0);
  InferenceModel model(find_model_directory(root() / "run"), mesh(), 64, make_cpu_backend(2));
  const auto measure = [&](const Dataset& dataset, std::int64_t sequences) {
    return evaluate(model.model(), model.fresh_context(), dataset,
                    {.batches = 0, .sequences = sequences, .name = "source", .on_progress = {}}, 0);
  };
  const Dataset packed = packed_set("a");
  ASSERT_LT(packed.samples(), packed.documents());
  const EvalMetrics by_three = measure(packed, 3), by_one = measure(packed, 1);
  EXPECT_EQ(by_three.tokens, packed.tokens() - packed.documents());
  EXPECT_NEAR(by_three.loss, by_one.loss, 1e-6);

  const Dataset stream((root() / "a").string(), 1 << 20, true, {}, Tail::keep);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(stream.tail())), targets = ids, start = ids;
  stream.read(0, ids, targets, start);
  double sum = 0;
  for (std::size_t first = 0, at = 1; at <= ids.size(); ++at) {
    if (at < ids.size() && start[at] == start[first]) continue;
    test::Corpus one{
        {std::vector<std::int32_t>(ids.begin() + static_cast<int>(first), ids.begin() + static_cast<int>(at))}, {}};
    if (at == ids.size()) one.documents[0].push_back(2);  // what the stream has no input for
    const std::string set = (root() / ("alone" + std::to_string(first))).string();
    test::write_corpus(set, one, {.tokenizer_sha256 = {}, .tokenizer_name = "none", .vocab_size = 61, .source = "one"});
    const EvalMetrics alone = measure(Dataset(set, 64, true, {}, Tail::keep), 1);
    sum += alone.loss * static_cast<double>(alone.tokens);
    first = at;
  }
  EXPECT_NEAR(by_three.loss, sum / static_cast<double>(by_three.tokens), 1e-6);
}

// With one expert a token, another order of a gate's rows changes every assignment, and padding has none.
TEST_F(PackedRun, TheProbeCountsNoPadding) {
  auto c = packed_config("");
  c.model.num_experts_per_tok = 1;
  TrainingParts parts(make_cpu_backend(1), c.model, c, mesh(), {});
  Tensor gate;
  parts.model->parameters().initialize(*parts.backend, 1, [&](const Parameter& p, std::span<float>) {
    if (p.name == "model.layers.1.block_sparse_moe.gate.weight") gate = p.value;
  });
  RouterProbe probe(std::make_shared<const Dataset>(packed_set("a")), 4, 3);
  const auto changed = [&] { return probe.changed(*parts.model, parts.step->context()); };
  EXPECT_EQ(changed(), std::vector<double>{});
  std::rotate(gate.f32(), gate.f32() + gate.dim(1), gate.f32() + gate.elements());
  EXPECT_EQ(changed(), (std::vector<double>{0, 1}));
}

TEST_F(PackedRun, RefusesDocumentsLongerThanASequence) {
  auto c = packed_config("refused");
  c.data.sequence_length = 32;
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"longer than a sequence", "data.sequence_length to"}));
  EXPECT_FALSE(std::filesystem::exists(root() / "refused"));
}

// ---- epochs ----

class EpochsOfARun : public PackedRun {
 protected:
  TrainerConfig with_epochs(const std::string& output, double epochs) const {
    auto c = packed_config(output);
    c.train.epochs = epochs;
    c.train.steps = TrainConfig().steps;
    for (DataSource& source : c.data.train) source.weight.reset();
    return c;
  }
};

TEST_F(EpochsOfARun, MakeStepsOfAllSources) {
  for (const Packing packing : {Packing::best_fit, Packing::stream}) {
    auto c = with_epochs(packing == Packing::stream ? "stream" : "packed", 1.5);
    c.data.packing = packing;
    const std::int64_t sequences = sequences_of(open_corpus(c.data, {})->train);
    const auto steps = static_cast<std::int64_t>(std::ceil(1.5 * static_cast<double>(sequences) / 4));
    EXPECT_EQ(run(c).steps, steps);
    const std::string told = "train.epochs 1.5 of the " + std::to_string(sequences) +
                             " sequences of data.train: " + std::to_string(steps) + " steps of 4";
    const std::string output = packing == Packing::stream ? "stream" : "packed";
    EXPECT_TRUE(mentions(log_of(output), {told}));
    EXPECT_TRUE(mentions(read_file(root() / output / "config.resolved.yaml", 1 << 20), {"# " + told}));
    EXPECT_EQ(metrics(output).steps.back().step, steps);
    EXPECT_EQ(run(c).steps, 0) << "nothing is left to train";
  }
}

TEST_F(EpochsOfARun, SchedulesGoByTheStepsThatTheyMake) {
  auto c = with_epochs("run", 3);
  c.schedule.type = ScheduleType::linear;
  c.schedule.min_lr_ratio = 0.25;
  c.train.output_dir.clear();
  const RunSummary summary = run(c);
  EXPECT_NEAR(summary.last->learning_rate, 0.25 * c.optimizer.learning_rate, 1e-12);
  EXPECT_EQ(summary.last->step, summary.steps);
  c.schedule.warmup_steps = 1000;
  c.train.output_dir = (root() / "warm").string();
  run(c);
  EXPECT_TRUE(mentions(log_of("warm"), {"warning: schedule.warmup_steps is 1000 of these"}));
}

CorpusChecks in_epochs() {
  CorpusChecks checks;
  checks.epochs = true;
  return checks;
}

// An epoch is a pass over every sequence: sources weigh what they hold, unless somebody weighs them.
TEST_F(EpochsOfARun, ShowEverySequenceOnceInEach) {
  const auto c = with_epochs("", 2);
  const auto corpus = open_corpus(c.data, in_epochs());
  const std::int64_t all = sequences_of(corpus->train);
  const Sampler sampler = make_sampler(corpus->train, 7, true, 1);
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    std::map<std::pair<std::int32_t, std::int64_t>, int> seen;
    for (std::int64_t n = 1; n <= all; ++n) {
      const SampleRef ref = sampler.at(epoch * all + n, 0);
      ++seen[{ref.source, ref.sample}];
    }
    EXPECT_EQ(std::ssize(seen), all);
  }
  auto weighed = c.data;
  weighed.train[0].weight = 3.0;
  const auto other = open_corpus(weighed, in_epochs());
  EXPECT_EQ(other->train[0].weight, 3.0);
  EXPECT_EQ(other->train[1].weight, 1.0);
  EXPECT_EQ(open_corpus(c.data, {})->train[1].weight, 1.0) << "steps ask for no such thing";
}

TEST(StepsOfEpochs, AreWholeOnesUpwards) {
  EXPECT_EQ(steps_of_epochs(1, 32, 32), 1);
  EXPECT_EQ(steps_of_epochs(1, 33, 32), 2);
  EXPECT_EQ(steps_of_epochs(0.001, 33, 32), 1);
  EXPECT_EQ(steps_of_epochs(1.1, 10, 1), 11) << "but for rounding";
  EXPECT_EQ(steps_of_epochs(3, 1000, 10), 300);
  test::expect_refused([] { steps_of_epochs(1e300, 1000, 10); }, {"train.epochs", "at most 1000000000"});
}

}  // namespace
}  // namespace smoe
