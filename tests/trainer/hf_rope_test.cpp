// The rotary embedding of a config.json under every spelling; what comes of it in logits is held in tests/goldens.
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/same_model.h"
#include "trainer/inference.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

class HfRope : public ::testing::Test {
 protected:
  // Of a model of 64 positions whose config.json has these keys beside its shape.
  HfConfig read(const std::string& keys) {
    std::ofstream(scratch.path() / "config.json") << R"({"model_type": "mixtral", "vocab_size": 61, "hidden_size": 32,
      "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
      "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 64)"
                                                  << (keys.empty() ? "" : ", ") << keys << "}";
    return read_hf_config(scratch.path());
  }
  std::string refusal(const std::string& keys) {
    SCOPED_TRACE(keys);
    return message_of([&] { read(keys); });
  }
  ScratchDir scratch;
};

TEST_F(HfRope, LinearUnderEverySpelling) {
  for (const char* keys : {
           R"("rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0})",
           R"("rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2})",
           R"("rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2})",
           R"("rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4})",
           R"("rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 10000.0})",
           R"("rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})",
           R"("rope_theta": 1e4, "rope_parameters": {"rope_type": "linear", "factor": 2.0})",
           R"("rope_theta": 1e4, "rope_scaling": null, "rope_parameters": {"rope_type": "linear", "factor": 2.0})",
           R"("rope_theta": 1e4, "rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0})",
           R"("rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2}, "partial_rotary_factor": 1.0,
              "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})",
       }) {
    const HfConfig config = read(keys);
    EXPECT_EQ(config.model.rope_scaling, (RopeScaling{.type = RopeType::linear, .factor = 2.0})) << keys;
    EXPECT_EQ(config.model.rope_theta, 1e4) << keys;
    EXPECT_TRUE(config.warnings.empty()) << keys << config.warnings.front();
  }
}

TEST_F(HfRope, DefaultUnderEverySpelling) {
  for (const char* keys : {R"("rope_theta": 1e4)", R"("rope_theta": 1e4, "rope_scaling": null)",
                           R"("rope_theta": 1e4, "rope_scaling": {"type": "default"})",
                           R"("rope_theta": 1e4, "rope_scaling": {"rope_type": "default"}, "rope_parameters": null)",
                           R"("rope_parameters": {"rope_theta": 1e4})",
                           R"("rope_parameters": {"rope_type": "default", "rope_theta": 1e4})",
                           R"("rope_parameters": {"type": "default", "rope_theta": 1e4})"}) {
    const HfConfig config = read(keys);
    EXPECT_EQ(config.model.rope_scaling, RopeScaling{}) << keys;
    EXPECT_EQ(config.model.rope_theta, 1e4) << keys;
    EXPECT_TRUE(config.warnings.empty()) << keys;
  }
}

TEST_F(HfRope, YarnsDefaultsAndWhatTheyComeFrom) {
  const auto yarn = [&](const std::string& keys, const std::string& beside = "") {
    return read(R"("rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", )" + keys + "}" + beside)
        .model.rope_scaling;
  };
  const RopeScaling plain = yarn(R"("factor": 4)");
  EXPECT_EQ(plain.original_max_position_embeddings, 64) << "where none is named";
  EXPECT_EQ(plain.beta_fast, 32);
  EXPECT_EQ(plain.beta_slow, 1);
  EXPECT_TRUE(plain.truncate);
  EXPECT_DOUBLE_EQ(plain.attention_factor, 1.1386294361119891);  // 0.1 ln 4 + 1
  EXPECT_DOUBLE_EQ(yarn(R"("factor": 4, "mscale": 0.8, "mscale_all_dim": 0.4)").attention_factor, 1.0525384255230092);
  EXPECT_DOUBLE_EQ(yarn(R"("factor": 4, "mscale": 0.8)").attention_factor, plain.attention_factor)
      << "one of the two alone counts for nothing";
  EXPECT_EQ(yarn(R"("factor": 4, "mscale": 1, "mscale_all_dim": 1, "attention_factor": 0.9)").attention_factor, 0.9);
  EXPECT_EQ(yarn(R"("factor": 4, "beta_fast": 0, "beta_slow": null)"), plain) << "0 and null are no values";
  EXPECT_FALSE(yarn(R"("factor": 4, "truncate": null)").truncate) << "null is false, as in Python";
  EXPECT_FALSE(yarn(R"("factor": 4, "truncate": false)").truncate);
  EXPECT_EQ(yarn(R"("factor": 4, "original_max_position_embeddings": 16)").original_max_position_embeddings, 16);
  EXPECT_EQ(
      yarn(R"("factor": 4, "original_max_position_embeddings": 16)", R"(, "original_max_position_embeddings": 32)")
          .original_max_position_embeddings,
      32);
  EXPECT_EQ(yarn(R"("factor": null, "original_max_position_embeddings": 16)").factor, 4);
}

TEST_F(HfRope, WhatIsWrittenReadsBackTheSame) {
  const std::vector<RopeScaling> all{
      {.type = RopeType::linear, .factor = 2.5},
      {.type = RopeType::dynamic, .factor = 1.1},
      {.type = RopeType::yarn,
       .factor = 4,
       .original_max_position_embeddings = 16,
       .beta_fast = 4,
       .beta_slow = 0.25,
       .truncate = false,
       .attention_factor = 1.1386294361119891},
      {.type = RopeType::yarn, .factor = 4, .original_max_position_embeddings = 64, .attention_factor = 0.5},
      {.type = RopeType::llama3,
       .factor = 2,
       .original_max_position_embeddings = 64,
       .low_freq_factor = 1,
       .high_freq_factor = 4},
      {.type = RopeType::llama3,
       .factor = 8,
       .original_max_position_embeddings = 32,
       .low_freq_factor = 0.5,
       .high_freq_factor = 3}};
  for (const RopeScaling& scaling : all) {
    HfConfig config = read(R"("rope_theta": 12345.0)");
    config.model.rope_scaling = scaling;
    write_hf_config(scratch.path(), config);
    const HfConfig found = read_hf_config(scratch.path());
    EXPECT_EQ(found.model, config.model);
    EXPECT_TRUE(found.warnings.empty()) << "both generations' keys are there, and say the same";
    Json json = read_json_file(scratch.path() / "config.json");
    EXPECT_EQ(json.at("rope_theta"), 12345.0);
    json.erase("rope_scaling");  // what transformers 5 alone would read
    write_json_file(scratch.path() / "config.json", json);
    EXPECT_EQ(read_hf_config(scratch.path()).model, config.model);
  }
}

TEST_F(HfRope, UnreadKeysAreTold) {
  const auto warning = [&](const std::string& keys) {
    const auto warnings = read(keys).warnings;
    return warnings.size() == 1 ? warnings.front() : "found " + std::to_string(warnings.size()) + " warnings";
  };
  EXPECT_TRUE(
      mentions(warning(R"("rope_theta": 1e4, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"})"),
               {"rope_theta is 10000, and in rope_parameters it is 500: the latter is read"}));
  EXPECT_TRUE(mentions(warning(R"("rope_theta": 1e4, "rope_scaling": {"factor": 2})"),
                       {"rope_scaling", "\"factor\"", "\"default\""}));
  EXPECT_TRUE(
      mentions(warning(R"("rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2})"),
               {"\"type\"", "\"linear\""}));
  EXPECT_TRUE(mentions(
      warning(
          R"("rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"})"),
      {"rope_scaling is read"}));
  EXPECT_TRUE(
      mentions(warning(R"("rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 0.5})"), {"factor is 0.5"}));
}

using HfRopeBadInput = HfRope;

TEST_F(HfRopeBadInput, TypesThatAreNotComputedAreRefusedByName) {
  for (const char* type : {"longrope", "proportional", "su", "mrope", "ntk"}) {
    for (const char* key : {"type", "rope_type"})
      for (const char* place : {"rope_scaling", "rope_parameters"})
        EXPECT_TRUE(mentions(refusal(std::string("\"") + place + R"(": {")" + key + R"(": ")" + type +
                                     R"(", "factor": 2, "rope_theta": 1e4})"),
                             {"config.json", place, key, type, "\"llama3\"", "not computed"}));
  }
  EXPECT_TRUE(mentions(refusal(R"("rope_scaling": {"rope_type": null})"), {"rope_scaling", "rope_type"}));
  EXPECT_TRUE(mentions(refusal(R"("rope_scaling": "linear")"), {"rope_scaling", "object"}));
  EXPECT_TRUE(mentions(refusal(R"("rope_parameters": {"full_attention": {"rope_type": "linear"}})"),
                       {"full_attention", "all layers"}));
}

TEST_F(HfRopeBadInput, HeadsThatAreRotatedInPartAreRefused) {
  EXPECT_TRUE(mentions(refusal(R"("rope_theta": 1e4, "partial_rotary_factor": 0.5)"),
                       {"partial_rotary_factor", "0.5", "whole heads"}));
  EXPECT_TRUE(mentions(refusal(R"("rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5})"),
                       {"rope_parameters", "partial_rotary_factor"}));
}

TEST_F(HfRopeBadInput, ValuesWithWhichNothingCanBeComputed) {
  const auto scaled = [&](const std::string& keys) {
    return refusal(R"("rope_theta": 1e4, "rope_scaling": {)" + keys + "}");
  };
  EXPECT_TRUE(mentions(scaled(R"("type": "linear")"), {"\"factor\"", "missing"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "yarn")"), {"\"factor\"", "missing"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "linear", "factor": null)"), {"factor"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "linear", "factor": 0)"), {"factor", "found 0", "above 0"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "dynamic", "factor": "2")"), {"factor"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "yarn", "factor": 2, "beta_fast": -1)"), {"beta_fast", "above 0"}));
  EXPECT_TRUE(
      mentions(scaled(R"("type": "yarn", "factor": 2, "attention_factor": 0)"), {"attention_factor", "above 0"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "yarn", "factor": 2, "rope_theta": 1)"), {"rope_theta", "above 1"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "yarn", "factor": 2, "original_max_position_embeddings": 0)"),
                       {"original_max_position_embeddings"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "linear", "factor": 1e-60)"), {"rope_scaling", "infinite", "f32"}));
  EXPECT_TRUE(
      mentions(scaled(R"("type": "yarn", "factor": 2, "attention_factor": 1e60)"), {"rope_scaling", "infinite"}));
  EXPECT_TRUE(mentions(refusal(R"("rope_theta": 1e-300)"), {"rope_theta", "infinite"}));
  EXPECT_TRUE(
      mentions(scaled(R"("type": "llama3", "factor": 2, "low_freq_factor": 1)"), {"high_freq_factor", "missing"}));
  EXPECT_TRUE(mentions(scaled(R"("type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1)"),
                       {"high_freq_factor", "above 4"}));
}

// A scaled model is trained, saved, resumed and used; past its positions it is not.
class ScaledRopeTraining : public TrainingTest {
 protected:
  // The checkpoint of an untrained model, given a scaling, as model.from.
  TrainerConfig scaled(const std::string& output, const Json& scaling) {
    auto first = config("first");
    first.train.steps = 0;
    EXPECT_EQ(train(first), 0);
    const auto directory = root() / "scaled";
    std::filesystem::remove_all(directory);
    std::filesystem::copy(checkpoint("first", 0) / "model", directory);
    Json json = read_json_file(directory / "config.json");
    json["rope_scaling"] = scaling;
    write_json_file(directory / "config.json", json);
    auto c = config(output);
    c.model.from = directory.string();
    c.train.steps = 10;
    return c;
  }
};

TEST_F(ScaledRopeTraining, IsExportedAndResumedAndComparedWithTheConfiguration) {
  const Json yarn = {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 16}};
  const auto run = scaled("run", yarn);
  ASSERT_EQ(train(run), 0);
  const ModelConfig exported = read_hf_config(checkpoint("run", 10) / "model").model;
  EXPECT_EQ(exported.rope_scaling, read_hf_config(*run.model.from).model.rope_scaling);
  EXPECT_EQ(exported.rope_scaling.type, RopeType::yarn);
  EXPECT_NO_THROW(check_same_model(checkpoint("run", 10), exported));
  const auto linear = scaled("run", {{"type", "linear"}, {"factor", 4}});
  EXPECT_TRUE(mentions(message_of([&] { train(linear); }), {"another model", "model.rope_scaling", "yarn", "linear"}));
}

TEST_F(ScaledRopeTraining, ChangesWhatIsLearned) {
  ASSERT_EQ(train(scaled("yarn", {{"rope_type", "yarn"}, {"factor", 4}})), 0);
  ASSERT_EQ(train(scaled("plain", nullptr)), 0);
  EXPECT_NE(state_hash("yarn", 10), state_hash("plain", 10));
}

TEST_F(ScaledRopeTraining, DynamicEndsWhereItWouldBeginToStretch) {
  const auto run = scaled("run", {{"type", "dynamic"}, {"factor", 2}});
  EXPECT_TRUE(mentions(message_of([&] { InferenceModel(*run.model.from, mesh(), 65, make_cpu_backend(1)); }),
                       {"65 positions", "has 64", "dynamic"}));
}

}  // namespace
}  // namespace smoe
