// What the reader accepts, and what it makes of it.
#include "configs/validate.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

TEST(ConfigReader, DefaultsAreThoseOfTheInterface) {
  const RunConfig config = parse_config(minimal_yaml, "configs/some.name.yaml");
  RunConfig expected;
  expected.data.train = {{"shards", 1.0}};
  expected.train.output_dir = "runs/some.name";
  EXPECT_EQ(config, expected);
}

TEST(ConfigReader, EveryKindOfValue) {
  const Home home("/the/home");
  const RunConfig config = parse_config(R"(
model: {num_attention_heads: 4, num_key_value_heads: +2, head_dim: 96, sliding_window: 128, rope_theta: 1e4}
router: {aux_loss_coef: .5, aux_loss_scope: hf, aux_loss_schedule: constant, target_max_vio: null, bias_update_rate: 0,
         frozen: true}
data:
  train:
    - {path: a/b, weight: 3}
    - path: "with space"
  eval: [{path: '12'}]
  shuffle: false
optimizer: {learning_rate: 1, epsilon: 1.e-9, weight_decay: 0.}
schedule: {type: wsd, decay_ratio: 0.25}
train: {device: cpu, precision: fp32, recompute: layer, output_dir: ~/runs, max_skipped_steps: 3, outlier_deviations: 6,
        label_smoothing: .1, neftune_alpha: 5,
        freeze: ['*.experts.*', "*norm*", lm_head.weight]}
checkpoint: {resume: never}
log: {dump_steps: [1, 10], tensorboard: false}
lora: null
)",
                                        "c.yaml");
  EXPECT_EQ(config.model.num_key_value_heads, 2);
  EXPECT_EQ(config.model.head_size(), 96);
  EXPECT_EQ(config.model.sliding_window, 128);
  EXPECT_EQ(config.model.rope_theta, 1e4);
  EXPECT_EQ(config.router.aux_loss_coef, 0.5);
  EXPECT_EQ(config.router.aux_loss_scope, AuxLossScope::hf);
  EXPECT_TRUE(config.router.frozen);
  EXPECT_EQ(config.train.freeze, (std::vector<std::string>{"*.experts.*", "*norm*", "lm_head.weight"}));
  EXPECT_EQ(config.data.train, (std::vector<DataSource>{{"a/b", 3.0}, {"with space", 1.0}}));
  EXPECT_EQ(config.data.eval, (std::vector<DataSource>{{"12", 1.0}}));
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.optimizer.epsilon, 1e-9);
  EXPECT_EQ(config.schedule.type, ScheduleType::wsd);
  EXPECT_EQ(config.train.recompute, Recompute::layer);
  EXPECT_EQ(config.train.output_dir, "/the/home/runs");
  EXPECT_EQ(config.train.max_skipped_steps, 3);
  EXPECT_EQ(config.train.outlier_deviations, 6.0);
  EXPECT_EQ(config.train.label_smoothing, 0.1);
  EXPECT_EQ(config.train.neftune_alpha, 5.0);
  EXPECT_EQ(config.checkpoint.resume, "never");
  EXPECT_EQ(config.log.dump_steps, (std::vector<std::int64_t>{1, 10}));
}

// Of the core schema, where they say what the value is anyway: some readers take 1e-5 for a text without one.
TEST(ConfigReader, TagsThatAgreeWithTheirValue) {
  const RunConfig config =
      parse_config(std::string(minimal_yaml) +
                       "optimizer: {learning_rate: !!float 1e-5, weight_decay: !!float \"0.5\"}\n"
                       "train: {steps: !!int 7, output_dir: !!str 12}\nlog: {tensorboard: !!bool false}\n",
                   "c.yaml");
  EXPECT_EQ(config.optimizer.learning_rate, 1e-5);
  EXPECT_EQ(config.optimizer.weight_decay, 0.5);
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.train.output_dir, "12");
  EXPECT_FALSE(config.log.tensorboard);
}

TEST(ConfigPath, TildeIsTheHomeDirectoryInEveryPath) {
  const Home home("/the/home");
  const RunConfig config = parse_config(R"(
model: {from: ~/mixtral}
data: {train: [{path: ~/a}, {path: "~/b c"}], eval: [{path: '~/'}]}
train: {output_dir: ~/runs/one}
checkpoint: {resume: ~/runs/two/checkpoints/step-000100}
)",
                                        "c.yaml", {"data.train.1.weight=2", "data.eval.1.path=~/more"});
  EXPECT_EQ(config.model.from, "/the/home/mixtral");
  EXPECT_EQ(config.data.train, (std::vector<DataSource>{{"/the/home/a", 1.0}, {"/the/home/b c", 2.0}}));
  EXPECT_EQ(config.data.eval, (std::vector<DataSource>{{"/the/home/", 1.0}, {"/the/home/more", 1.0}}));
  EXPECT_EQ(config.train.output_dir, "/the/home/runs/one");
  EXPECT_EQ(config.checkpoint.resume, "/the/home/runs/two/checkpoints/step-000100");
}

TEST(ConfigPath, NothingElseIsExpanded) {
  const RunConfig config =
      with_overrides({"model.from=a~/b", "train.output_dir=./~ann", "data.eval=[{path: 'a/~/b*?{c}%d'}]"});
  EXPECT_EQ(config.model.from, "a~/b");
  EXPECT_EQ(config.train.output_dir, "./~ann");
  EXPECT_EQ(config.data.eval, (std::vector<DataSource>{{"a/~/b*?{c}%d", 1.0}}));
  EXPECT_EQ(with_overrides({"model.from=~"}).model.from, std::nullopt) << "YAML's null";
}

TEST(ConfigReader, WindowsLinesAndByteOrderMark) {
  EXPECT_EQ(refusal("\xEF\xBB\xBF"
                    "data:\r\n  train: [{path: shards}]\r\n"),
            "");
}

TEST(ConfigOverride, ReplacesWhatTheFileSays) {
  const RunConfig config =
      with_overrides({"optimizer.learning_rate=1e-3", "train.steps=5", "train.steps=6", "log.dump_steps=[2, 3]",
                      "checkpoint.resume=a=b", "model.head_dim=64", "model.head_dim=null"});
  EXPECT_EQ(config.optimizer.learning_rate, 1e-3);
  EXPECT_EQ(config.train.steps, 6) << "the last of several wins";
  EXPECT_EQ(config.log.dump_steps, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(config.checkpoint.resume, "a=b");
  EXPECT_EQ(config.model.head_dim, std::nullopt);
}

TEST(ConfigEpochs, StandInPlaceOfSteps) {
  EXPECT_EQ(with_overrides({}).train.epochs, std::nullopt);
  const RunConfig epochs = parse_config(minimal_yaml + "train: {epochs: 2.5}\n", "c.yaml");
  EXPECT_EQ(epochs.train.epochs, 2.5);
  EXPECT_EQ(epochs.train.steps, TrainConfig().steps) << "the data tells";
  EXPECT_EQ(parse_config(minimal_yaml + "train: {steps: 7, epochs: null}\n", "c.yaml").train.steps, 7);
  // The command line has the last word, of either.
  const RunConfig over_steps = parse_config(minimal_yaml + "train: {steps: 7}\n", "c.yaml", {"train.epochs=3"});
  EXPECT_EQ(over_steps.train.epochs, 3.0);
  EXPECT_EQ(over_steps.train.steps, TrainConfig().steps);
  const RunConfig over_epochs = parse_config(minimal_yaml + "train: {epochs: 3}\n", "c.yaml", {"train.steps=7"});
  EXPECT_EQ(over_epochs.train.epochs, std::nullopt);
  EXPECT_EQ(over_epochs.train.steps, 7);
}

// Without a weight a source weighs 1; where epochs are told, that nobody gave one is known.
TEST(ConfigEpochs, LeaveWeightsThatWereNotGivenAbsent) {
  const std::string yaml = "data: {train: [{path: a}, {path: b, weight: 2}], eval: [{path: c}]}\n";
  EXPECT_EQ(parse_config(yaml, "c.yaml").data.train, (std::vector<DataSource>{{"a", 1.0}, {"b", 2.0}}));
  const RunConfig epochs = parse_config(yaml, "c.yaml", {"train.epochs=1"});
  EXPECT_EQ(epochs.data.train, (std::vector<DataSource>{{"a", std::nullopt}, {"b", 2.0}}));
  EXPECT_EQ(epochs.data.eval, (std::vector<DataSource>{{"c", std::nullopt}}));
}

TEST(ConfigOverride, ListsAsAWholeOrOneEntry) {
  const RunConfig one =
      with_overrides({"data.train.0.weight=2", "data.train.1.path=more", "data.eval.0.path=held_out"});
  EXPECT_EQ(one.data.train, (std::vector<DataSource>{{"shards", 2.0}, {"more", 1.0}}));
  EXPECT_EQ(one.data.eval, (std::vector<DataSource>{{"held_out", 1.0}}));
  const RunConfig whole = with_overrides({"data.train=[{path: other}]"});
  EXPECT_EQ(whole.data.train, (std::vector<DataSource>{{"other", 1.0}}));
}

TEST(ConfigOverride, MendsAValueThatTheFileHasWrong) {
  EXPECT_EQ(refusal("train: {steps: many}\n" + minimal_yaml, {"train.steps=3"}), "");
}

TEST(ConfigModelFrom, AWindowMayStandBesideIt) {
  EXPECT_FALSE(with_overrides({"model.from=DIR"}).model.sliding_window_given);
  const RunConfig none = with_overrides({"model.from=DIR", "model.sliding_window=null"});
  EXPECT_TRUE(none.model.sliding_window_given);
  EXPECT_EQ(none.model.sliding_window, std::nullopt);
  EXPECT_EQ(with_overrides({"model.from=DIR", "model.sliding_window=128"}).model.sliding_window, 128);
}

TEST(ConfigModelFrom, LeavesTheShapeToTheDirectory) {
  const RunConfig config = with_overrides({"model.from=DIR", "data.sequence_length=100000"});
  EXPECT_EQ(config.model.from, "DIR");
  RunConfig resolved = config;  // the shape read from DIR does not reach that far
  try {
    validate(resolved, "DIR/config.json");
    FAIL() << "accepted a sequence longer than the model's positions";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "DIR/config.json: data.sequence_length: found 100000, expected at most "
                 "model.max_position_embeddings (4096)");
  }
  resolved.model.max_position_embeddings = 131072;
  EXPECT_NO_THROW(validate(resolved, "DIR/config.json"));
  resolved.model.vocab_size = 0;
  EXPECT_THROW(validate(resolved, "DIR/config.json"), ConfigError);
}

TEST(ConfigWarning, WarmUpThatNeverEnds) {
  EXPECT_TRUE(find_warnings(with_overrides({"train.steps=100"})).empty());
  EXPECT_EQ(
      find_warnings(with_overrides({"train.steps=50"})),
      (std::vector<std::string>{"schedule.warmup_steps is 100 of 50 steps in all: the learning rate ends at 50% of "
                                "optimizer.learning_rate"}));
  EXPECT_EQ(find_warnings(with_overrides({"train.steps=110", "schedule.type=wsd"})).size(), 1u);
}

TEST(ConfigWarning, WhatIsOfNoUseToAdapters) {
  EXPECT_EQ(find_warnings(with_overrides({"lora.r=4"})).size(), 1u) << "adapters beside random numbers";
  EXPECT_TRUE(find_warnings(with_overrides({"lora.r=4", "checkpoint.export_dtype=bf16"}))
                  .back()
                  .starts_with("checkpoint.export_dtype is of the weights in model/"));
}

}  // namespace
}  // namespace smoe
