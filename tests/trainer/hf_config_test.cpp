#include "trainer/checkpoint/hf_config.h"

#include <fstream>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

class HfConfigTest : public ::testing::Test {
 protected:
  HfConfig read(const std::string& text) {
    std::ofstream(scratch.path() / "config.json") << text;
    return read_hf_config(scratch.path());
  }
  std::string refusal(const std::string& text) {
    SCOPED_TRACE(text);
    return message_of([&] { read(text); });
  }
  ScratchDir scratch;
};

// As the released directories have it (transformers 4), less what is not read.
std::string released(const std::string& more = "") {
  return R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false,
    "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 32000)" +
         more + "}";
}

TEST_F(HfConfigTest, ReadsTheReleasedMixtral) {
  const auto config = read(released());
  EXPECT_EQ(count_parameters(config.model).total, 46702792704);
  EXPECT_EQ(config.model.rope_theta, 1e6);
  EXPECT_EQ(config.router_aux_loss_coef, 0.02);
  EXPECT_TRUE(config.warnings.empty());
}

TEST_F(HfConfigTest, ReadsThetaWhereTransformers5KeepsIt) {
  std::string text = released(R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"})");
  text.erase(text.find("\"rope_theta\": 1000000.0,"), 24);
  EXPECT_EQ(read(text).model.rope_theta, 5e5);
}

// MixtralConfig's of transformers 4 and 5: the released 8x7B with 131,072 positions.
TEST_F(HfConfigTest, AbsentKeysHaveTheDefaultsOfMixtralConfig) {
  const auto config = read(R"({"model_type": "mixtral"})");
  const ModelConfig& m = config.model;
  EXPECT_EQ(count_parameters(m).total, 46702792704);
  EXPECT_EQ(m.num_attention_heads, 32);
  EXPECT_EQ(m.num_key_value_heads, 8);
  EXPECT_EQ(m.head_size(), 128);
  EXPECT_EQ(m.num_experts_per_tok, 2);
  EXPECT_EQ(m.max_position_embeddings, 131072);
  EXPECT_EQ(m.rope_theta, 1e6);
  EXPECT_EQ(m.rope_scaling, RopeScaling{});
  EXPECT_EQ(m.rms_norm_eps, 1e-5);
  EXPECT_EQ(m.initializer_range, 0.02);
  EXPECT_EQ(m.sliding_window, std::nullopt);
  EXPECT_EQ(config.bos, 1);
  EXPECT_FALSE(config.tied_head);
  ASSERT_EQ(config.warnings.size(), 2u);
  EXPECT_TRUE(mentions(config.warnings[0],
                       {"config.json", "absent", "num_key_value_heads 8", "max_position_embeddings 131072"}));
  EXPECT_TRUE(mentions(config.warnings[1], {"rope_theta", "1000000"}));
}

TEST_F(HfConfigTest, KeyValueHeadsAbsentAreEightAndNullAreAsManyAsQueries) {
  const std::string key = "\"num_key_value_heads\": 8, ";
  std::string absent = released(), null = released();
  absent.erase(absent.find(key), key.size());
  EXPECT_EQ(read(absent).model.num_key_value_heads, 8);
  EXPECT_TRUE(mentions(read(absent).warnings.at(0), {"num_key_value_heads 8"}));
  null.replace(null.find(key), key.size(), "\"num_key_value_heads\": null, ");
  EXPECT_EQ(read(null).model.num_key_value_heads, 32);
}

TEST_F(HfConfigTest, ExpertsUnderTheirSecondName) {
  std::string text = released();
  text.replace(text.find("num_local_experts"), 17, "num_experts");
  EXPECT_EQ(read(text).model.num_local_experts, 8);
}

TEST_F(HfConfigTest, ARoutingThatIsNotMixtralsHasDeepSeeksNames) {
  EXPECT_TRUE(read(released()).model.routes_as_mixtral());
  const auto config =
      read(released(R"(, "scoring_func": "sigmoid", "norm_topk_prob": false, "routed_scaling_factor": 2.5)"));
  EXPECT_EQ(config.model.scoring_func, Score::sigmoid);
  EXPECT_FALSE(config.model.norm_topk_prob);
  EXPECT_EQ(config.model.routed_scaling_factor, 2.5);
  write_hf_config(scratch.path(), config);
  EXPECT_EQ(read_hf_config(scratch.path()).model, config.model);
  EXPECT_TRUE(mentions(refusal(released(R"(, "scoring_func": "tanh")")), {"scoring_func", "tanh", "sigmoid"}));
  EXPECT_TRUE(mentions(refusal(released(R"(, "routed_scaling_factor": 0)")), {"routed_scaling_factor", "above 0"}));
}

TEST_F(HfConfigTest, WithoutAModelTypeTheClassCounts) {
  EXPECT_EQ(read(R"({"architectures": ["MixtralForCausalLM"], "vocab_size": 61})").model.vocab_size, 61);
}

TEST_F(HfConfigTest, TiedEmbeddingsAreTakenApartAndThatIsSaid) {
  std::string tied = released();
  tied.replace(tied.find("\"tie_word_embeddings\": false"), 28, "\"tie_word_embeddings\": true");
  const auto config = read(tied);
  EXPECT_TRUE(config.tied_head);
  ASSERT_EQ(config.warnings.size(), 1u);
  EXPECT_TRUE(mentions(config.warnings[0], {"tie_word_embeddings", "two tensors"}));
  write_hf_config(scratch.path(), config);
  EXPECT_FALSE(read_hf_config(scratch.path()).tied_head);
}

TEST_F(HfConfigTest, WhatIsWrittenReadsBackTheSame) {
  HfConfig config;
  config.model.head_dim = 48;
  config.model.sliding_window = 33;
  config.model.rms_norm_eps = 1e-6;
  config.bos = -1;
  config.eos = {7};
  config.pad = 5;
  config.router_aux_loss_coef = 0.04;
  write_hf_config(scratch.path(), config);
  const auto found = read_hf_config(scratch.path());
  EXPECT_EQ(found.model, config.model);
  EXPECT_EQ(found.bos, -1);
  EXPECT_EQ(found.eos, std::vector<std::int32_t>{7});
  EXPECT_EQ(found.pad, 5);
  EXPECT_EQ(found.router_aux_loss_coef, 0.04);
  EXPECT_EQ(found.warnings.size(), 1u) << "a sliding window deserves a word";
}

TEST_F(HfConfigTest, AWindowGivenBesideModelFromOverrulesTheOneThatCame) {
  HfConfig config;
  config.model.sliding_window = 4096;  // as checkpoints derived from Mixtral carry by mistake
  write_hf_config(scratch.path(), config);
  ModelConfig wanted;
  EXPECT_EQ(read_hf_config(scratch.path(), wanted).model.sliding_window, 4096) << "nothing is said beside model.from";
  wanted.sliding_window_given = true;
  const auto none = read_hf_config(scratch.path(), wanted);
  EXPECT_EQ(none.model.sliding_window, std::nullopt);
  EXPECT_TRUE(none.warnings.empty());
  wanted.sliding_window = 7;
  EXPECT_EQ(read_hf_config(scratch.path(), wanted).model.sliding_window, 7);
}

TEST_F(HfConfigTest, EveryEosIsReadAndWritten) {
  const auto with_eos = [&](const std::string& eos) {
    std::string text = released();
    text.replace(text.find("\"eos_token_id\": 2"), 17, "\"eos_token_id\": " + eos);
    return read(text);
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(with_eos("2").eos, Ids{2});
  EXPECT_EQ(with_eos("[2, 44]").eos, (Ids{2, 44}));
  EXPECT_EQ(with_eos("null").eos, Ids{});
  EXPECT_EQ(with_eos("[]").eos, Ids{});
  EXPECT_EQ(with_eos("-1").eos, Ids{});
  for (const Ids& ids : {Ids{}, Ids{9}, Ids{2, 44, 7}}) {
    HfConfig config;
    config.eos = ids;
    write_hf_config(scratch.path(), config);
    EXPECT_EQ(read_hf_config(scratch.path()).eos, ids);
    config.eos.clear();
    EXPECT_EQ(read_stop_ids(scratch.path(), config), ids) << "generation_config.json";
  }
  EXPECT_TRUE(mentions(refusal(released(R"(, "bos_token_id": "1")")), {"config.json", "bos_token_id"}));
}

TEST_F(HfConfigTest, GenerationStopsAtTheIdsOfBothFiles) {
  using Ids = std::vector<std::int32_t>;
  const auto stops = [&](const Ids& eos, const std::string& generation) {
    std::ofstream(scratch.path() / "generation_config.json") << generation;
    HfConfig config;
    config.eos = eos;
    return read_stop_ids(scratch.path(), config);
  };
  EXPECT_EQ(stops({2}, R"({"eos_token_id": 44, "temperature": 0.7})"), (Ids{2, 44}));
  EXPECT_EQ(stops({2, 44}, R"({"eos_token_id": [44, 2, 5]})"), (Ids{2, 44, 5}));
  EXPECT_EQ(stops({2}, R"({"eos_token_id": null})"), Ids{2});
  EXPECT_EQ(stops({2}, "{}"), Ids{2});
  EXPECT_EQ(stops({}, R"({"eos_token_id": [3]})"), Ids{3});
  for (const char* bad :
       {"[]", "{", R"({"eos_token_id": "2"})", R"({"eos_token_id": [-1]})", R"({"eos_token_id": [[2]]})"})
    EXPECT_TRUE(mentions(message_of([&] { stops({2}, bad); }), {"generation_config.json"})) << bad;
}

TEST_F(HfConfigTest, KeysThatNothingHereDecidesAreWrittenBack) {
  // As transformers 4 and 5 write them, and as others add to them.
  const auto config = read(released(
      R"(, "attention_dropout": 0.1, "output_router_logits": true, "router_jitter_noise": 0.01, "use_cache": false,
      "transformers_version": "4.36.0.dev0", "torch_dtype": "bfloat16", "dtype": "float16", "_name_or_path": "mistralai/other",
      "auto_map": {"AutoModel": "modeling.M"}, "quantization_config": null, "num_experts": 8, "partial_rotary_factor": 1.0,
      "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "license": "apache-2.0", "layers_tuned": [3, 4.5])"));
  EXPECT_EQ(config.kept,
            parse_json(R"({"attention_dropout": 0.1, "output_router_logits": true, "router_jitter_noise": 0.01,
      "use_cache": false, "transformers_version": "4.36.0.dev0", "license": "apache-2.0", "layers_tuned": [3, 4.5]})",
                       "expected"));
  write_hf_config(scratch.path(), config);
  const Json written = read_json_file(scratch.path() / "config.json");
  for (const auto& [key, value] : config.kept.items()) EXPECT_EQ(written.at(key), value) << key;
  EXPECT_EQ(written.at("torch_dtype"), "float32") << "the type of what is written";
  for (const char* gone : {"dtype", "_name_or_path", "auto_map", "quantization_config", "num_experts"})
    EXPECT_FALSE(written.contains(gone)) << gone;
  EXPECT_EQ(read_hf_config(scratch.path()).kept, config.kept);
}

// What is kept cannot take the place of what is known: every key that is written by name is one that is not kept, or one that
// transformers' own runs are set by.
TEST_F(HfConfigTest, NoKeyOfTheShapeIsKept) {
  HfConfig config;
  config.model.scoring_func = Score::sigmoid;
  config.model.rope_scaling = {.type = RopeType::linear, .factor = 2};
  config.pad = 3;
  config.forced_routing = "uniform";
  write_hf_config(scratch.path(), config);
  std::vector<std::string> kept;
  const Json found = read_hf_config(scratch.path()).kept;
  for (const auto& [key, value] : found.items()) kept.push_back(key);
  EXPECT_EQ(kept, (std::vector<std::string>{"attention_dropout", "output_router_logits", "router_jitter_noise",
                                            "use_cache"}));
}

using HfConfigBadInput = HfConfigTest;

TEST_F(HfConfigBadInput, RefusesWhatWouldBeComputedDifferently) {
  EXPECT_TRUE(mentions(refusal(released(R"(, "quantization_config": {"bits": 4})")), {"quantization_config"}));
  std::string llama = released();
  llama.replace(llama.find("\"mixtral\""), 9, "\"llama\"");
  EXPECT_TRUE(mentions(refusal(llama), {"model_type", "llama", "mixtral"}));
}

TEST_F(HfConfigBadInput, RefusesMissingMistypedAndImpossibleValues) {
  EXPECT_TRUE(mentions(refusal("{}"), {"config.json", "model_type", "architectures"}));
  EXPECT_TRUE(mentions(refusal(R"({"architectures": ["LlamaForCausalLM"]})"), {"model_type", "MixtralForCausalLM"}));
  EXPECT_TRUE(mentions(refusal(R"({"model_type": "mixtral", "vocab_size": null})"), {"vocab_size"}));
  EXPECT_TRUE(mentions(refusal(released(R"(, "num_experts": 4)")), {"num_experts", "found 4", "num_local_experts"}));
  EXPECT_TRUE(mentions(refusal("[1"), {"config.json"}));
  std::string text = released();
  text.replace(text.find("\"num_experts_per_tok\": 2"), 24, "\"num_experts_per_tok\": 9");
  EXPECT_TRUE(mentions(refusal(text), {"num_experts_per_tok", "9", "8"}));
  text = released();
  text.replace(text.find("\"hidden_size\": 4096"), 19, "\"hidden_size\": 40.5");
  EXPECT_TRUE(mentions(refusal(text), {"hidden_size"}));
  text = released();
  text.replace(text.find("\"rms_norm_eps\": 1e-05"), 21, "\"rms_norm_eps\": -1");
  EXPECT_TRUE(mentions(refusal(text), {"rms_norm_eps", "found -1", "(0, 1)"}));
  text = released();
  text.replace(text.find("\"rope_theta\": 1000000.0"), 23, "\"rope_theta\": 0");
  EXPECT_TRUE(mentions(refusal(text), {"rope_theta", "found 0", "above 0"}));
}

}  // namespace
}  // namespace smoe
