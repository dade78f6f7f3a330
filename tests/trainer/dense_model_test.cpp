// What a dense directory's config.json becomes, and the directories that are no parents.
#include "trainer/convert/dense_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/dense_fixture.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/convert/upcycle.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::DenseDirectory;
using test::mentions;
using test::message_of;
using test::ScratchDir;
using test::slurp;
using test::spill;

class DenseParent : public ::testing::Test {
 protected:
  UpcycleOptions options(std::vector<fs::path> dense = {}) const {
    UpcycleOptions o;
    o.dense = dense.empty() ? std::vector<fs::path>{scratch / "parent"} : std::move(dense);
    o.out = scratch / "out";
    return o;
  }
  // config.json of what becomes of a parent with these keys in place of the usual ones; null: without the key.
  Json config_made_of(const std::string& type, const Json& keys) {
    write(type, keys);
    warnings = upcycle(options()).warnings;
    const Json made = read_json_file(scratch / "out" / "config.json");
    read = read_hf_config(scratch / "out");
    fs::remove_all(scratch / "out");
    return made;
  }
  void write(const std::string& type, const Json& keys) const {
    fs::remove_all(scratch / "parent");
    DenseDirectory dense{.type = type};
    dense.write(scratch / "parent");
    Json json = read_json_file(scratch / "parent" / "config.json");
    for (const auto& [key, value] : keys.items())
      if (value == "absent")
        json.erase(key);
      else
        json[key] = value;
    write_json_file(scratch / "parent" / "config.json", json);
  }
  std::string refusal(const UpcycleOptions& o) const {
    const std::string message = message_of([&] { upcycle(o); });
    EXPECT_FALSE(fs::exists(scratch / "out"));
    EXPECT_EQ(message.find('\n'), message.find("\n  ")) << "more than one message: " << message;
    return message;
  }
  void expect_config_refused(const Json& keys, std::initializer_list<std::string_view> pieces,
                             const std::string& type = "llama") const {
    write(type, keys);
    mentions(refusal(options()), pieces);
  }

  ScratchDir scratch;
  std::vector<std::string> warnings;
  HfConfig read;
};

TEST_F(DenseParent, KeysThatAreNotOfItsArchitectureAreKept) {
  const Json made = config_made_of("llama", {{"bos_token_id", 5},
                                             {"eos_token_id", {7, 8}},
                                             {"pad_token_id", 9},
                                             {"mlp_bias", false},
                                             {"pretraining_tp", 1},
                                             {"attention_bias", false},
                                             {"_name_or_path", "somewhere"},
                                             {"transformers_version", "4.42"},
                                             {"num_experts", nullptr},
                                             {"quantization_config", nullptr},
                                             {"dtype", "bfloat16"},
                                             {"initializer_range", 0.04},
                                             {"my_own", {{"a", 1}}},
                                             {"attention_dropout", 0.0}});
  EXPECT_EQ(made.at("my_own"), (Json{{"a", 1}}));
  EXPECT_EQ(made.at("architectures"), Json{"MixtralForCausalLM"});
  EXPECT_EQ(made.at("eos_token_id"), (Json{7, 8}));
  for (const char* gone :
       {"mlp_bias", "pretraining_tp", "attention_bias", "_name_or_path", "dtype", "num_experts", "quantization_config"})
    EXPECT_FALSE(made.contains(gone)) << gone;
  EXPECT_EQ(made.at("transformers_version"), "4.42");
  EXPECT_EQ(made.at("torch_dtype"), "float32");
  EXPECT_EQ(read.bos, 5);
  EXPECT_EQ(read.eos, (std::vector<std::int32_t>{7, 8}));
  EXPECT_EQ(read.pad, 9);
  EXPECT_TRUE(read.warnings.empty());
  EXPECT_TRUE(warnings.empty());
  ModelConfig expected;
  expected.vocab_size = 61;
  expected.hidden_size = 32;
  expected.intermediate_size = 24;
  expected.num_hidden_layers = 2;
  expected.num_attention_heads = 4;
  expected.num_key_value_heads = 2;
  expected.num_local_experts = 8;
  expected.num_experts_per_tok = 2;
  expected.max_position_embeddings = 64;
  expected.rope_theta = 5000;
  expected.initializer_range = 0.04;
  EXPECT_EQ(read.model, expected);
}

TEST_F(DenseParent, RotaryEmbeddingIsKeptInBothSpellings) {
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 16}};
  Json made = config_made_of("llama", {{"rope_scaling", llama3}});
  EXPECT_EQ(made.at("rope_scaling"), llama3);
  EXPECT_EQ(made.at("rope_parameters").at("rope_theta"), 5000.0);
  EXPECT_EQ(made.at("rope_parameters").at("rope_type"), "llama3");
  EXPECT_EQ(read.model.rope_scaling.type, RopeType::llama3);
  EXPECT_EQ(read.model.rope_scaling.factor, 8);
  EXPECT_TRUE(read.warnings.empty());

  Json five = {{"rope_theta", 777.0}, {"rope_type", "linear"}, {"factor", 2.0}};  // as transformers 5 writes it
  made = config_made_of("mistral", {{"rope_theta", "absent"}, {"rope_parameters", five}});
  EXPECT_EQ(made.at("rope_theta"), 777.0);
  EXPECT_EQ(read.model.rope_theta, 777);
  EXPECT_EQ(read.model.rope_scaling.type, RopeType::linear);

  config_made_of("llama", {{"rope_theta", "absent"}});  // LlamaConfig's default, which is not Mixtral's
  EXPECT_EQ(read.model.rope_theta, 10000);
  ASSERT_EQ(warnings.size(), 1u);
  mentions(warnings[0], {"LlamaConfig", "rope_theta 10000"});
}

TEST_F(DenseParent, AbsentKeysHaveItsOwnArchitecturesDefaults) {
  config_made_of("mistral", {{"sliding_window", "absent"}, {"rms_norm_eps", "absent"}});
  EXPECT_EQ(read.model.sliding_window, 4096);
  EXPECT_EQ(read.model.rms_norm_eps, 1e-6);
  ASSERT_EQ(warnings.size(), 1u);
  mentions(warnings[0], {"MistralConfig", "sliding_window 4096"});
  config_made_of("mistral", {{"sliding_window", 12}});
  EXPECT_EQ(read.model.sliding_window, 12);
  config_made_of("llama", {{"sliding_window", 12}, {"max_position_embeddings", "absent"}});  // Llama has no window
  EXPECT_EQ(read.model.sliding_window, std::nullopt);
  EXPECT_EQ(read.model.max_position_embeddings, 2048);
  config_made_of("llama", {{"model_type", "absent"}, {"num_attention_heads", 4}, {"head_dim", nullptr}});
  EXPECT_EQ(read.model.head_size(), 8);
  // Without the key as many as there are queries' heads, for which the weights here are too small.
  expect_config_refused({{"num_key_value_heads", nullptr}}, {"k_proj.weight: found [16, 32], expected [32, 32]"});
}

TEST_F(DenseParent, TheTokenizerGoesAlong) {
  write("llama", {});
  scratch.write("parent/tokenizer.json", "{ \"mine\": 1}");
  scratch.write("parent/tokenizer_config.json", "{}");
  scratch.write("parent/generation_config.json", "{\"eos_token_id\": [2, 4]}");
  upcycle(options());
  EXPECT_EQ(slurp(scratch / "out" / "tokenizer.json"), "{ \"mine\": 1}");
  EXPECT_EQ(slurp(scratch / "out" / "generation_config.json"), "{\"eos_token_id\": [2, 4]}");
  EXPECT_EQ(read_stop_ids(scratch / "out", read_hf_config(scratch / "out")), (std::vector<std::int32_t>{2, 4}));
}

// ---- what is refused ----

TEST_F(DenseParent, OtherArchitecturesAreRefused) {
  expect_config_refused({{"model_type", "mixtral"}},
                        {"config.json: model_type: found \"mixtral\"", "\"llama\" or \"mistral\""});
  expect_config_refused({{"num_local_experts", 8}}, {"num_local_experts: found 8", "mixture of experts already"},
                        "mistral");
  expect_config_refused({{"model_type", "mixtral"}, {"num_local_experts", 8}}, {"mixture of experts already"});
  expect_config_refused({{"n_routed_experts", 64}}, {"mixture of experts already"});
  expect_config_refused({{"model_type", "qwen2"}}, {"found \"qwen2\"", "biases"});
  expect_config_refused({{"model_type", "gpt2"}}, {"found \"gpt2\", expected \"llama\" or \"mistral\""});
  expect_config_refused({{"model_type", "absent"}, {"architectures", {"BertModel"}}}, {"model_type: found none"});
}

TEST_F(DenseParent, WhatAMixtralHasNoPlaceForIsRefused) {
  expect_config_refused({{"attention_bias", true}}, {"config.json: attention_bias: found true", "no biases"});
  expect_config_refused({{"mlp_bias", true}}, {"mlp_bias: found true", "no biases"});
  expect_config_refused({{"hidden_act", "gelu"}}, {"hidden_act: found \"gelu\"", "silu"});
  expect_config_refused({{"quantization_config", {{"bits", 4}}}}, {"quantization_config"});
  expect_config_refused({{"rope_scaling", {{"rope_type", "longrope"}}}},
                        {"rope_type", "longrope", "not computed here"});
  expect_config_refused({{"rms_norm_eps", 0}}, {"rms_norm_eps: found 0"});
  expect_config_refused({{"num_key_value_heads", 3}}, {"config.json: num_key_value_heads: found 3"});
  expect_config_refused({{"hidden_size", "wide"}}, {"config.json", "hidden_size"});
}

TEST_F(DenseParent, TensorsThatDoNotFitAreAllNamed) {
  DenseDirectory biased;
  biased.more = {{"model.layers.0.self_attn.q_proj.bias", {32}}, {"model.layers.0.self_attn.k_proj.bias", {16}}};
  biased.write(scratch / "parent");
  mentions(refusal(options()),
           {"parent: 2 tensor(s) are biases", "model.safetensors: model.layers.0.self_attn.", "no place"});

  fs::remove_all(scratch / "parent");
  DenseDirectory{.more = {{"score.weight", {3, 32}}}, .types = {{"model.norm.weight", TensorType::f16}}}.write(
      scratch / "parent");
  mentions(refusal(options()), {"score.weight: found, but"});

  fs::remove_all(scratch / "parent");
  DenseDirectory headless{.with_head = false};
  headless.config["vocab_size"] = 60;
  headless.write(scratch / "parent");
  mentions(refusal(options()),
           {"lm_head.weight: missing, expected [60, 32]", "embed_tokens.weight: found [61, 32], expected [60, 32]"});
}

TEST_F(DenseParent, TwoHeadsOfATiedModelMustBeOne) {
  DenseDirectory tied;
  tied.config["tie_word_embeddings"] = true;
  tied.write(scratch / "parent");
  mentions(refusal(options()), {"tie_word_embeddings is true", "lm_head.weight", "differ"});

  const TensorDirectory directory(scratch / "parent");
  const auto embedding = test::numbers_of(directory, "model.embed_tokens.weight");
  std::vector<TensorSpec> specs;
  for (const std::string& name : directory.names())
    specs.push_back({name, TensorType::f32, directory.info(name).shape});
  fs::create_directory(scratch / "equal");
  auto writer = TensorDirectoryWriter::create(scratch / "equal", specs);
  for (const TensorSpec& spec : specs)
    writer.write_f32(spec.name, 0, spec.name == "lm_head.weight" ? embedding : test::numbers_of(directory, spec.name));
  writer.finish();
  fs::copy(scratch / "parent" / "config.json", scratch / "equal");
  upcycle(options({scratch / "equal"}));
  EXPECT_EQ(test::numbers_of(TensorDirectory(scratch / "out"), "lm_head.weight"), embedding);
}

TEST_F(DenseParent, DirectoriesThatCannotBeReadAreRefused) {
  mentions(refusal(options({scratch / "nowhere"})), {"nowhere is not a directory"});
  write("llama", {});
  fs::rename(scratch / "parent" / "model.safetensors", scratch / "parent" / "pytorch_model.bin");
  mentions(refusal(options()), {"pytorch_model.bin", "pickle", "safe_serialization"});
  spill(scratch / "parent" / "model.safetensors.index.json",
        R"({"weight_map": {"model.norm.weight": "../elsewhere/model.safetensors"}})");
  mentions(refusal(options()), {"../elsewhere", "plain name"});
  fs::remove(scratch / "parent" / "config.json");
  mentions(refusal(options()), {"config.json"});
}

TEST_F(DenseParent, ParentsOfDifferentShapeAreRefused) {
  write("llama", {});
  const auto other = [&](const test::DenseShape& shape, const Json& keys,
                         std::initializer_list<std::string_view> pieces) {
    fs::remove_all(scratch / "other");
    DenseDirectory{.shape = shape, .config = keys}.write(scratch / "other");
    mentions(refusal(options({scratch / "parent", scratch / "other"})), pieces);
  };
  other({.intermediate = 26}, {}, {"intermediate_size", "parent has 24", "other has 26"});
  other({.vocabulary = 62}, {}, {"vocab_size", "parent has 61", "other has 62"});
  other({.layers = 1}, {}, {"num_hidden_layers", "has 2", "has 1"});
  other({}, {{"rope_theta", 1e4}}, {"rope_theta", "has 5000", "has 10000"});
  other({}, {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}, {"rope_scaling", "linear"});
  other({}, {{"rms_norm_eps", 1e-6}}, {"rms_norm_eps"});

  // What differs without harm is told.
  fs::remove_all(scratch / "other");
  DenseDirectory{.config = {{"max_position_embeddings", 128}}}.write(scratch / "other");
  scratch.write("parent/tokenizer.json", "{}");
  const auto told = upcycle(options({scratch / "parent", scratch / "other"})).warnings;
  ASSERT_EQ(told.size(), 2u);
  mentions(told[0], {"max_position_embeddings", "64", "128", "the first's is taken"});
  mentions(told[1], {"different tokenizer files"});
}

TEST_F(DenseParent, OptionsThatDoNotGoTogetherAreRefused) {
  write("llama", {});
  const auto expect = [&](auto change, std::initializer_list<std::string_view> pieces) {
    UpcycleOptions o = options();
    change(o);
    mentions(refusal(o), pieces);
  };
  expect([](UpcycleOptions& o) { o.dense.clear(); }, {"--dense"});
  expect([](UpcycleOptions& o) { o.experts = 0; }, {"--experts: found 0"});
  expect([](UpcycleOptions& o) { o.top_k = 9; }, {"--top-k: found 9", "1 to --experts (8)"});
  expect([](UpcycleOptions& o) { o.granularity = 3; }, {"--experts: found 8", "multiple of --granularity (3)"});
  expect([](UpcycleOptions& o) { o.granularity = 4; }, {"--top-k: found 2", "multiple of --granularity (4)"});
  expect([](UpcycleOptions& o) { o.granularity = o.top_k = o.experts = 16; },
         {"intermediate_size is 24", "multiple of the granularity 16"});
  expect(
      [](UpcycleOptions& o) {
        o.dense = {o.dense[0], o.dense[0], o.dense[0]};
      },
      {"--experts: found 8", "multiple of 3"});
  expect([](UpcycleOptions& o) { o.router_std = -1; }, {"--router-std: found -1"});
  expect([](UpcycleOptions& o) { o.drop = 1.5; }, {"--drop: found 1.5"});
  expect([](UpcycleOptions& o) { o.drop = std::numeric_limits<double>::quiet_NaN(); }, {"--drop: found nan"});
}

TEST_F(DenseParent, TheOutputIsGuarded) {
  write("llama", {});
  const auto before = slurp(scratch / "parent" / "model.safetensors");
  UpcycleOptions o = options();
  o.out = scratch / "parent" / ".";
  EXPECT_THROW(upcycle(o), std::runtime_error);
  o.out = scratch / "parent";
  mentions(message_of([&] { upcycle(o); }), {"parent is what is read"});
  scratch.write("full/mine", "x");
  o.out = scratch / "full";
  mentions(message_of([&] { upcycle(o); }), {"full holds mine"});
  EXPECT_EQ(slurp(scratch / "parent" / "model.safetensors"), before);
  EXPECT_EQ(scratch.entries(), 2u);
}

}  // namespace
}  // namespace smoe
