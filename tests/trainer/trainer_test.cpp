#include "trainer/trainer.h"

#include <cmath>
#include <fstream>
#include <limits>

#include "data/files/safetensors.h"
#include "tests/support/shards.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/evaluate.h"
#include "trainer/generate.h"
#include "trainer/checkpoint/weights.h"
#include "tests/support/message_of.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {
namespace {

using TrainerRun = TrainingTest;

// 129 ids that are no targets: the first batch of 8 x 16 has nothing to learn from, the second has.
TEST_F(TrainerRun, ABatchWithoutTargetsHasNoLoss) {
  std::vector<std::int32_t> ids(257);
  std::vector<std::uint8_t> mask(257, 0);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(3 + i % 58);
    mask[i] = i > 128;
  }
  test::write_corpus(root() / "masked", {{ids}, {mask}},
                     {.tokenizer_sha256 = "", .tokenizer_name = "none", .vocab_size = 61, .source = "masked"});
  auto c = config("run");
  c.data.train = {{.path = (root() / "masked").string()}};
  c.data.eval.clear();
  c.data.shuffle = false;
  c.train.steps = 2;
  ASSERT_EQ(train(c), 0);
  const MetricsLog rows = metrics("run");
  ASSERT_EQ(rows.steps.size(), 2u);
  EXPECT_TRUE(std::isnan(rows.steps[0].lm_loss)) << rows.steps[0].lm_loss;
  EXPECT_GT(rows.steps[1].lm_loss, 1);
  EXPECT_EQ(rows.steps[1].skipped_steps, 0);
}

TEST_F(TrainerRun, LearnsAndWritesEverythingItPromises) {
  auto c = config("run");
  c.log.tensorboard = true;
  c.log.dump_steps = {1};
  ASSERT_EQ(train(c), 0);
  const auto rows = metrics("run");
  ASSERT_EQ(rows.steps.size(), 20u);
  EXPECT_LT(rows.steps.back().lm_loss, 0.9 * rows.steps.front().lm_loss);
  const auto& row = rows.steps.back();
  EXPECT_EQ(row.tokens, 20 * 8 * 16);
  EXPECT_EQ(row.expert_load.size(), 2u);
  for (const auto& layer : row.expert_load) {
    double sum = 0;
    for (double share : layer) sum += share;
    EXPECT_NEAR(sum, 1.0, 1e-6);
  }
  EXPECT_EQ(row.by_layer.max_vio, max_violations(row.expert_load));
  EXPECT_TRUE(row.by_layer.dropped.empty());
  for (const std::size_t l : {0u, 1u}) {
    EXPECT_GT(row.by_layer.gradient_lm[l], 0);
    EXPECT_LE(row.by_layer.entropy[l], row.by_layer.mean_entropy[l] + 1e-6);  // entropy is concave
    EXPECT_GT(row.by_layer.entropy[l], 0);
    EXPECT_GT(row.by_layer.margin[l], 0);
    EXPECT_LT(row.by_layer.margin[l], std::sqrt(2.0) * row.by_layer.logit_norm[l]);
    EXPECT_LE(std::abs(row.by_layer.cosine_lm_balance[l]), 1 + 1e-9);
  }
  EXPECT_EQ(row.by_layer.rank_load, (std::vector<double>{1, 1}));
  visit_layers(row.by_layer, [&](const char*, const std::string& key, const std::vector<double>& values) {
    EXPECT_EQ(values.size(), (key == "dropped_assignments" || key == "changed_assignments") ? 0u : 2u) << key;
  });
  EXPECT_NEAR(row.loss, row.lm_loss + 0.01 * row.aux_loss + 0.001 * row.z_loss, 1e-9);
  EXPECT_GT(row.peak_memory_bytes, 1u << 20);
  EXPECT_GT(row.mfu, 0.0);
  EXPECT_GT(row.share_of_product, 0.0);
  ASSERT_EQ(rows.evals.size(), 2u);
  EXPECT_EQ(rows.evals.back().source, "alpha");
  for (const char* file : {"config.resolved.yaml", "metrics.jsonl", "train.log", "tensorboard", "checkpoints/latest",
                           "dumps/step-000001.safetensors"})
    EXPECT_TRUE(std::filesystem::exists(root() / "run" / file)) << file;
  for (const char* file :
       {"model/config.json", "model/generation_config.json", "model/model.safetensors", "state.json", "manifest.json"})
    EXPECT_TRUE(std::filesystem::exists(checkpoint("run", 20) / file)) << file;
}

TEST_F(TrainerRun, KeepsTheNewestCheckpointsOnly) {
  auto c = config("run");
  c.checkpoint.interval = 4;
  c.checkpoint.keep = 2;
  ASSERT_EQ(train(c), 0);
  EXPECT_FALSE(std::filesystem::exists(checkpoint("run", 12)));
  EXPECT_TRUE(std::filesystem::exists(checkpoint("run", 16)));
  EXPECT_TRUE(std::filesystem::exists(checkpoint("run", 20)));
  EXPECT_EQ(latest_checkpoint(root() / "run" / "checkpoints"), checkpoint("run", 20));
}

TEST_F(TrainerRun, ADumpHoldsTheGradientAndTheUpdatedWeight) {
  auto c = config("run");
  c.train.steps = 1;
  c.log.dump_steps = {1};
  ASSERT_EQ(train(c), 0);
  const SafetensorsReader dump(root() / "run" / "dumps" / "step-000001.safetensors");
  const SafetensorsReader saved(checkpoint("run", 1) / "model" / "model.safetensors");
  double squares = 0;
  for (const auto& info : saved.tensors()) {
    std::vector<float> a(static_cast<std::size_t>(info.elements())), b(a.size()), g(a.size());
    saved.read_f32(info.name, a.data(), 0, info.elements());
    dump.read_f32("param." + info.name, b.data(), 0, info.elements());
    dump.read_f32("grad." + info.name, g.data(), 0, info.elements());
    EXPECT_EQ(a, b) << info.name;
    for (float x : g) squares += static_cast<double>(x) * x;
  }
  EXPECT_NEAR(std::sqrt(squares), metrics("run").steps[0].grad_norm, 1e-5 * std::sqrt(squares));
}

TEST_F(TrainerRun, ZeroStepsWriteTheStartingCheckpoint) {
  auto c = config("run");
  c.train.steps = 0;
  ASSERT_EQ(train(c), 0);
  EXPECT_TRUE(std::filesystem::exists(checkpoint("run", 0) / "model" / "config.json"));
}

TEST_F(TrainerRun, StartsFromTheWeightsOfADirectory) {
  ASSERT_EQ(train(config("first")), 0);
  auto second = config("second");
  second.model = ModelConfig{};
  second.model.from = (root() / "first").string();
  second.train.steps = 0;
  ASSERT_EQ(train(second), 0);
  EXPECT_EQ(sha256_file(checkpoint("first", 20) / "model" / "model.safetensors"),
            sha256_file(checkpoint("second", 0) / "model" / "model.safetensors"));
}

TEST_F(TrainerRun, AccumulationGivesTheSameLossAndNormToRounding) {
  std::vector<double> norms, losses;
  for (std::int64_t micro : {8, 4, 2}) {
    auto c = config("micro-" + std::to_string(micro));
    c.train.micro_batch_size = micro;
    c.train.steps = 1;
    c.router.aux_loss_coef = 0;  // f and P over another number of tokens is another balance loss
    c.router.z_loss_coef = 0;
    ASSERT_EQ(train(c), 0);
    const auto rows = metrics("micro-" + std::to_string(micro));
    norms.push_back(rows.steps[0].grad_norm);
    losses.push_back(rows.steps[0].lm_loss);
  }
  for (std::size_t i = 1; i < norms.size(); ++i) {
    EXPECT_NEAR(losses[i], losses[0], 1e-6 * losses[0]);
    EXPECT_NEAR(norms[i], norms[0], 1e-5 * norms[0]);
  }
}

// A weight that is not finite makes every loss non-finite: no step may change anything, and the run must stop.
TEST_F(TrainerRun, NonFiniteStepsAreRefusedCountedAndEndTheRun) {
  auto c = config("run");
  c.train.max_skipped_steps = 3;
  c.checkpoint.interval = 1;
  Trainer trainer = make_trainer(c);
  Parameter* poisoned = trainer.model().parameters().find("model.norm.weight");
  poisoned->value.f32()[0] = std::numeric_limits<float>::quiet_NaN();
  const Tensor head = trainer.model().parameters().find("lm_head.weight")->value;
  const std::vector<float> before(head.f32(), head.f32() + head.elements());
  EXPECT_TRUE(mentions(message_of([&] { trainer.run(); }), {"3 steps in a row", "max_skipped_steps", "steps 1 to 3"}));
  EXPECT_EQ(std::vector<float>(head.f32(), head.f32() + head.elements()), before);
  EXPECT_EQ(trainer.state().updates, 0);
  EXPECT_EQ(trainer.state().skipped, 3);
  EXPECT_EQ(metrics("run").steps.back().skipped_steps, 3);
}

TEST_F(TrainerRun, EvaluationOfACheckpointEqualsTheRunsOwn) {
  auto c = config("run");
  c.eval.batches = 1000;
  ASSERT_EQ(train(c), 0);
  const Mesh mesh = Mesh::single();
  InferenceModel model(find_model_directory(root() / "run"), mesh, 16, make_cpu_backend(2));
  const Dataset held_out((root() / "held-out").string(), 16, true);
  const auto found = evaluate(model.model(), model.fresh_context(), held_out,
                              {.batches = 0, .sequences = 4, .name = "alpha", .on_progress = {}}, 20);
  EXPECT_EQ(found.loss, metrics("run").evals.back().loss);
  EXPECT_EQ(found.tokens, metrics("run").evals.back().tokens);
}

TEST_F(TrainerRun, CachedGenerationEqualsFullRecomputation) {
  auto c = config("run");
  c.model.sliding_window = 7;
  ASSERT_EQ(train(c), 0);
  const Mesh mesh = Mesh::single();
  InferenceModel model(find_model_directory(root() / "run"), mesh, 64, make_cpu_backend(2));
  const std::vector<std::int32_t> prompt{1, 5, 9, 14};
  for (bool greedy : {true, false}) {
    GenerateOptions options{.max_tokens = 48, .greedy = greedy, .temperature = 0.8, .top_p = 0.9, .seed = 3};
    const auto cached = generate(model, prompt, options);
    options.use_cache = false;
    EXPECT_EQ(cached, generate(model, prompt, options));
    EXPECT_EQ(cached.size(), 48u);
  }
}

// A conversation: each prompt goes on behind the last, or begins anew somewhere inside it.
TEST_F(TrainerRun, WhatIsKeptOfAnEarlierTextChangesNothing) {
  auto c = config("run");
  c.model.sliding_window = 7;
  ASSERT_EQ(train(c), 0);
  const Mesh mesh = Mesh::single();
  InferenceModel model(find_model_directory(root() / "run"), mesh, 64, make_cpu_backend(2));
  GenerateOptions options{.max_tokens = 6, .temperature = 0.8, .seed = 3};
  KeptSequence kept(model);
  kept.reserve(16);
  const auto expect_same = [&](const std::vector<std::int32_t>& prompt, std::int64_t computed) {
    GenerateOptions alone = options;
    alone.use_cache = false;
    const std::int64_t before = kept.computed();
    const auto made = generate(model, prompt, options, {}, &kept);
    EXPECT_EQ(made, generate(model, prompt, alone));
    EXPECT_EQ(kept.computed() - before, computed);
    return made;
  };
  std::vector<std::int32_t> sequence{1, 5, 9, 14};
  const auto first = expect_same(sequence, 4 + 5);  // the last id that is drawn is not fed
  sequence.insert(sequence.end(), first.begin(), first.end());
  expect_same(sequence, 1 + 5);
  sequence.insert(sequence.end(), {2, 7});
  ASSERT_EQ(kept.room(), 16);
  expect_same(sequence, 12 + 5);  // there was room for 16: it moves
  ASSERT_EQ(kept.room(), 32);
  expect_same(sequence, 1 + 5);
  sequence[10] = 3;
  expect_same(sequence, 2 + 5);
  expect_same({1, 5}, 1 + 5);
}

// A model that holds more ids than its tokenizer, as released ones do whose rows were rounded up.
TEST_F(TrainerRun, IdsBeyondTheTokenizersVocabularyAreNeverDrawn) {
  auto c = config("run");
  c.train.steps = 1;
  c.optimizer.learning_rate = 0;
  ASSERT_EQ(train(c), 0);
  const Mesh mesh = Mesh::single();
  InferenceModel model(find_model_directory(root() / "run"), mesh, 64, make_cpu_backend(2));
  const std::vector<std::int32_t> prompt{1, 5};
  const auto largest = [](const std::vector<std::int32_t>& ids) { return *std::max_element(ids.begin(), ids.end()); };
  for (const bool greedy : {true, false}) {
    GenerateOptions options{.max_tokens = 60, .greedy = greedy, .temperature = 1.0, .seed = 3};
    const auto all = generate(model, prompt, options);
    options.vocabulary = largest(all);  // the one that was drawn is the first that may not be
    const auto masked = generate(model, prompt, options);
    EXPECT_LT(largest(masked), options.vocabulary);
    EXPECT_EQ(masked.size(), 60u);
    options.vocabulary = 61;
    EXPECT_EQ(generate(model, prompt, options), all) << "where nothing is beyond, nothing changes";
  }
}

TEST_F(TrainerRun, GenerationStopsAtEveryStopEvenBeyondTheTokenizersVocabulary) {
  auto c = config("run");
  c.train.steps = 1;
  ASSERT_EQ(train(c), 0);
  const Mesh mesh = Mesh::single();
  InferenceModel model(find_model_directory(root() / "run"), mesh, 64, make_cpu_backend(2));
  const std::vector<std::int32_t> prompt{1, 5};
  GenerateOptions options{.max_tokens = 60, .seed = 3};
  const auto all = generate(model, prompt, options);
  for (const std::size_t place : {3u, 20u}) {
    options.stops = {60000, all[place]};  // the second of a list counts as the first does
    const auto first = std::find(all.begin(), all.end(), all[place]);
    EXPECT_EQ(generate(model, prompt, options), std::vector<std::int32_t>(all.begin(), first));
  }
  options.vocabulary = 1;  // id 0 alone means text: only that and the stops are left
  options.stops = {60};
  const auto made = generate(model, prompt, options);
  EXPECT_LT(made.size(), 60u);
  EXPECT_EQ(std::count(made.begin(), made.end(), 0), static_cast<std::ptrdiff_t>(made.size()));
}

TEST(Generate, TopPAndTemperatureChooseAsDefined) {
  const std::vector<float> logits{0.0f, std::log(6.0f), std::log(3.0f),
                                  std::log(1.0f)};  // probabilities 1/11, 6/11, 3/11, 1/11
  EXPECT_EQ(choose_token(logits, {.greedy = true}, 0), 1);
  std::array<int, 4> all{}, nucleus{}, cold{};
  for (int i = 0; i < 4000; ++i) {
    ++all[static_cast<std::size_t>(choose_token(logits, {.seed = 5}, i))];
    ++nucleus[static_cast<std::size_t>(choose_token(logits, {.top_p = 0.8, .seed = 5}, i))];
    ++cold[static_cast<std::size_t>(choose_token(logits, {.temperature = 0.1, .seed = 5}, i))];
  }
  EXPECT_NEAR(all[1] / 4000.0, 6.0 / 11, 0.03);
  EXPECT_NEAR(all[2] / 4000.0, 3.0 / 11, 0.03);
  EXPECT_EQ(nucleus[0] + nucleus[3], 0);  // 6/11 + 3/11 >= 0.8
  EXPECT_NEAR(nucleus[1] / 4000.0, 2.0 / 3, 0.03);
  EXPECT_GT(cold[1], 3980);
}

}  // namespace
}  // namespace smoe
