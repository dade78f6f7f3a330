// Directories of adapters as other software writes them: what is read of them, by whole and by slice, and what is refused.
#include "trainer/checkpoint/peft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "kernels/host_view.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/adapter_files.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::AdapterFixture;
using test::drawn;
using test::expect_refused;
using test::mentions;
using test::message_of;
using test::ScratchDir;
using test::StoredTensors;
using test::tiny_model;

const std::string layer_prefix = "base_model.model.model.layers.0.";
const std::string moe_prefix = layer_prefix + "block_sparse_moe.";

LoraConfig everywhere(std::int64_t r = 2) {
  LoraConfig lora;
  lora.r = r;
  lora.alpha = 6;
  lora.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"};
  return lora;
}

class PeftTest : public testing::Test {
 protected:
  PeftConfig read(const AdapterFixture& adapter) { return read_peft_config(adapter.write(scratch.path()), model); }
  std::string refusal(const AdapterFixture& adapter) {
    adapter.write(scratch.path());
    return message_of([&] { read_peft_config(scratch.path(), model); });
  }
  // Each adapter parameter's slice, at a place of a layout.
  std::map<std::string, std::vector<float>> loaded(const AdapterFixture& adapter, const LoraConfig& lora,
                                                   const Mesh& mesh = Mesh::single()) {
    adapter.write(scratch.path());
    ParameterSet parameters = declare_parameters(model, mesh, {}, DType::f32, &lora);
    Arena arena(*backend);
    parameters.allocate(*backend, arena, mesh, false);
    load_adapter(scratch.path(), read_peft_config(scratch.path(), model), model, *backend, parameters);
    std::map<std::string, std::vector<float>> slices;
    for (const Parameter& p : parameters)
      if (p.adapter) slices[p.name] = numbers_of(*backend, p.value);
    return slices;
  }

  ModelConfig model = tiny_model();
  ScratchDir scratch;
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
};

TEST_F(PeftTest, ReadsWhatItSays) {
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  adapter.config.update({{"lora_dropout", 0.25}, {"use_rslora", true}, {"base_model_name_or_path", "some/base"}});
  const PeftConfig config = read(adapter);
  EXPECT_EQ(config.lora.r, 2);
  EXPECT_EQ(config.lora.alpha, 6);
  EXPECT_EQ(config.lora.dropout, 0.25);
  EXPECT_TRUE(config.lora.rslora);
  EXPECT_EQ(config.lora.target_modules, everywhere().target_modules);
  EXPECT_TRUE(config.lora.layers.empty());
  EXPECT_EQ(config.base, "some/base");
  EXPECT_TRUE(config.warnings.empty());
}

TEST_F(PeftTest, ModulesMayBeNamedByAnyEndOfTheirPathsOrByAnExpression) {
  const LoraConfig lora = [] {
    LoraConfig some = everywhere();
    some.target_modules = {"q_proj", "w2"};
    return some;
  }();
  AdapterFixture adapter = AdapterFixture::of(model, lora);
  Json full = Json::array({"q_proj", "self_attn.q_proj"});
  for (int l = 0; l < 2; ++l)
    for (int e = 0; e < 4; ++e) full.push_back(fmt::format("model.layers.{}.block_sparse_moe.experts.{}.w2", l, e));
  for (const Json& names : {Json{"self_attn.q_proj", "w2"}, full, Json(".*(q_proj|w2)$"), Json("all-linear")}) {
    adapter.config["target_modules"] = names;
    EXPECT_EQ(read(adapter).lora.target_modules, lora.target_modules) << names;
  }
}

TEST_F(PeftTest, LayersAreThoseThatHaveAdapters) {
  LoraConfig lora = everywhere();
  lora.layers = {1, 1};
  AdapterFixture adapter = AdapterFixture::of(model, lora);
  EXPECT_EQ(read(adapter).lora.layers, lora.layers);
  adapter.config["layers_to_transform"] = 1;
  EXPECT_EQ(read(adapter).lora.layers, lora.layers);
  adapter.config["layers_to_transform"] = nullptr;
  EXPECT_TRUE(mentions(refusal(adapter), {"model.layers.0.self_attn.q_proj.lora_A.weight: missing"}));
  adapter.config["layers_to_transform"] = {0, 1};
  EXPECT_TRUE(mentions(refusal(adapter), {"model.layers.0.self_attn.q_proj.lora_A.weight: missing"}));
  adapter.config["layers_to_transform"] = {0};
  EXPECT_TRUE(mentions(refusal(adapter), {"layers.1.self_attn.q_proj.lora_A.weight: found, but", "does not name it"}));
}

TEST_F(PeftTest, LayersWithAGapAreRefusedByTheConfigurationAlone) {
  model.num_hidden_layers = 3;
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  std::erase_if(adapter.tensors, [](const auto& entry) { return entry.first.find("layers.1.") != std::string::npos; });
  adapter.config["layers_to_transform"] = {0, 2};
  EXPECT_TRUE(mentions(refusal(adapter), {"no adapter beside model.layers.1.self_attn.q_proj", "smoe merge"}));
  EXPECT_EQ(PeftAdapter(scratch.path(), model).pairs().size(), 34u);
}

TEST_F(PeftTest, SpellingsOfTheSameTensors) {
  const AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  const auto expected = loaded(adapter, everywhere());
  ASSERT_EQ(expected.size(), 2u * 2 * (5 + 3 * 4));
  EXPECT_EQ(expected.at("model.layers.0.block_sparse_moe.experts.3.w1.lora_B.weight"),
            adapter.tensors.at(moe_prefix + "experts.3.w1.lora_B.weight").numbers);
  AdapterFixture spelled = adapter.renamed(".lora_A.", ".lora_A.default.").renamed(".lora_B.", ".lora_B.default.");
  EXPECT_EQ(loaded(spelled, everywhere()), expected);
  EXPECT_EQ(loaded(spelled.renamed("block_sparse_moe", "mlp"), everywhere()), expected);
  spelled = spelled.renamed(".w1.", ".gate_proj.").renamed(".w2.", ".down_proj.").renamed(".w3.", ".up_proj.");
  EXPECT_EQ(loaded(spelled, everywhere()), expected);
  spelled.config["target_modules"] = {"q_proj", "k_proj",    "v_proj",    "o_proj",
                                      "gate",   "gate_proj", "down_proj", "up_proj"};
  EXPECT_EQ(loaded(spelled, everywhere()), expected);
}

TEST_F(PeftTest, EveryRankReadsItsSlices) {
  const LoraConfig lora = everywhere();
  const AdapterFixture adapter = AdapterFixture::of(model, lora);
  const auto whole = loaded(adapter, lora);
  int compared = 0;
  for (const Layout& layout : layouts_of(4)) {
    if (layout.tp > 2) continue;  // two key-value heads
    for (int rank = 0; rank < 4; ++rank) {
      const Mesh mesh = Mesh::placed(layout, rank);
      const auto slices = loaded(adapter, lora, mesh);
      for (const Parameter& p : declare_parameters(model, mesh, {}, DType::f32, &lora)) {
        if (!p.adapter) continue;
        const std::vector<float>& all = whole.at(p.name);
        const std::vector<float>& slice = slices.at(p.name);
        for (std::int64_t i = 0; i < p.slice.elements(); ++i, ++compared)
          ASSERT_EQ(slice[static_cast<std::size_t>(i)],
                    all[static_cast<std::size_t>(global_index(p.shape, p.slice, p.first, i))])
              << p.name << " on rank " << rank << " of " << layout.to_string();
      }
    }
  }
  EXPECT_EQ(compared, 71040);
}

TEST_F(PeftTest, SmallerRanksAreFilledUpWithZerosAndScalesBecomeOne) {
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());  // r 2, alpha 6: scale 3
  const AdapterFixture larger = AdapterFixture::of(model, everywhere(4));
  for (const auto& [name, tensor] : larger.tensors)
    if (name.find("o_proj") != std::string::npos) adapter.tensors[name] = tensor;
  adapter.config["rank_pattern"] = {{".*\\.self_attn.o_proj$", 4}};
  adapter.config["alpha_pattern"] = {{"o_proj", 8}};  // scale 2
  const PeftConfig config = read(adapter);
  EXPECT_EQ(config.lora.r, 4);
  EXPECT_EQ(config.lora.scale(), 2);
  const auto slices = loaded(adapter, config.lora);
  EXPECT_EQ(slices.at("model.layers.0.self_attn.o_proj.lora_B.weight"),
            larger.tensors.at(layer_prefix + "self_attn.o_proj.lora_B.weight").numbers);
  const std::vector<float>& a = slices.at("model.layers.0.self_attn.q_proj.lora_A.weight");
  const std::vector<float>& b = slices.at("model.layers.0.self_attn.q_proj.lora_B.weight");
  const auto& file_a = adapter.tensors.at(layer_prefix + "self_attn.q_proj.lora_A.weight").numbers;
  const auto& file_b = adapter.tensors.at(layer_prefix + "self_attn.q_proj.lora_B.weight").numbers;
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], i < file_a.size() ? file_a[i] : 0) << i;
  for (std::size_t i = 0; i < b.size(); ++i) ASSERT_EQ(b[i], i % 4 < 2 ? file_b[i / 4 * 2 + i % 4] * 1.5f : 0) << i;

  expect_refused([&] { loaded(adapter, everywhere(2)); }, {"o_proj.lora_A.weight: found rank 4, expected at most 2"});
}

TEST_F(PeftTest, ConfigurationsThatAreComputedOtherwiseAreRefused) {
  const AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  const std::vector<std::tuple<Json, std::vector<std::string>>> cases = {
      {{{"peft_type", "IA3"}}, {"peft_type: found \"IA3\", expected \"LORA\""}},
      {{{"r", 0}}, {"r", "65536"}},
      {{{"r", "8"}}, {"r"}},
      {{{"lora_alpha", 0}}, {"lora_alpha: found 0, expected in [1e-09, 1000000000]"}},
      {{{"lora_dropout", 1}}, {"lora_dropout: found 1, expected in [0, 1)"}},
      {{{"use_dora", true}}, {"use_dora: found \"true\"", "DoRA"}},
      {{{"bias", "all"}}, {"bias: found \"all\", expected \"none\""}},
      {{{"lora_bias", true}}, {"lora_bias: found \"true\"", "an adapter with biases cannot be read here"}},
      {{{"fan_in_fan_out", true}}, {"fan_in_fan_out"}},
      {{{"modules_to_save", {"embed_tokens", "lm_head"}}},
       {"modules_to_save", "an adapter with a trained embedding or head"}},
      {{{"modules_to_save", {"norm"}}}, {"modules_to_save", "trained whole"}},
      {{{"trainable_token_indices", {1}}}, {"trainable_token_indices", "a trained embedding or head"}},
      {{{"init_lora_weights", "pissa_niter_4"}}, {"init_lora_weights", "pissa_niter_4", "PiSSA"}},
      {{{"init_lora_weights", "olora"}}, {"init_lora_weights"}},
      {{{"layer_replication", {{0, 1}}}}, {"layer_replication"}},
      {{{"target_modules", Json::array()}}, {"target_modules: found none"}},
      {{{"target_modules", {1}}}, {"target_modules"}},
      {{{"layers_to_transform", {-1}}}, {"layers_to_transform"}},
      {{{"layers_to_transform", 0.5}}, {"layers_to_transform"}},
      {{{"rank_pattern", {{"layers\\.[01]\\.q_proj", 4}}}}, {"rank_pattern", "other regular expressions"}},
      {{{"rank_pattern", {{"q_proj", 0}}}}, {"rank_pattern"}},
      {{{"rank_pattern", {{"q_proj", 4}, {"self_attn.q_proj", 8}}}}, {"rank_pattern", "4", "8", "one of the two"}},
      {{{"alpha_pattern", {{"q_proj", -1}}}}, {"alpha_pattern: found -1, expected in ["}},
      {{{"target_modules", {"q_proj", "gate_proj"}}}, {"\"gate_proj\", which matches nothing", "called w1"}},
      {{{"target_modules", {"q_proj", "mlp.up_proj"}}}, {"called w3"}},
      {{{"target_modules", {"q_proj", "down_proj"}}}, {"called w2"}},
      {{{"target_modules", {"q_proj", "lm_head"}}}, {"a trained embedding or head"}},
      {{{"target_parameters", {"experts.weight"}}},
       {"target_parameters names \"experts.weight\", which matches nothing"}},
  };
  for (const auto& [more, pieces] : cases) {
    AdapterFixture other = adapter;
    other.config.update(more);
    SCOPED_TRACE(more.dump());
    for (const std::string& piece : pieces) EXPECT_TRUE(mentions(refusal(other), {piece}));
    EXPECT_TRUE(mentions(refusal(other), {"adapter_config.json"}));
  }
}

TEST_F(PeftTest, WhatSaysNothingOrOnlyHowItWasTrainedIsAccepted) {
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  adapter.config.update({{"use_dora", false},
                         {"modules_to_save", nullptr},
                         {"layers_to_transform", nullptr},
                         {"layer_replication", Json::array()},
                         {"rank_pattern", Json::object()},
                         {"loftq_config", Json::object()},
                         {"init_lora_weights", "gaussian"},
                         {"eva_config", {{"rho", 2.0}}},
                         {"qalora_group_size", 16},
                         {"new_and_off", false},
                         {"rank_pattern", {{"q_proj", 2}}}});
  EXPECT_TRUE(read(adapter).warnings.empty());
  adapter.config["new_and_on"] = 3;
  const PeftConfig config = read(adapter);
  ASSERT_EQ(config.warnings.size(), 1u);
  EXPECT_TRUE(mentions(config.warnings[0], {"adapter_config.json", "new_and_on"}));
}

TEST_F(PeftTest, OneMessageListsAllTensorsThatDoNotFit) {
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  StoredTensors& t = adapter.tensors;
  t[layer_prefix + "self_attn.q_proj.lora_A.weight"] = drawn("q", {4, 32});
  t[moe_prefix + "experts.0.w1.lora_B.weight"] = drawn("w1", {32, 2});
  t.erase(moe_prefix + "experts.1.w2.lora_B.weight");
  t.erase(layer_prefix + "self_attn.k_proj.lora_A.weight");
  t.erase(layer_prefix + "self_attn.k_proj.lora_B.weight");
  t[layer_prefix + "self_attn.v_proj.lora_A.weight"].type = TensorType::i32;
  t[layer_prefix + "self_attn.v_proj.lora_A.weight"].numbers.resize(64);
  t[moe_prefix + "experts.4.w1.lora_A.weight"] = drawn("no", {2, 32});
  t["base_model.model.lm_head.weight"] = drawn("head", {61, 32});
  t[layer_prefix + "self_attn.q_proj.lora_magnitude_vector"] = drawn("dora", {32});
  t[layer_prefix + "mlp.gate.lora_A.weight"] = drawn("gate", {2, 32});
  t[layer_prefix + "mlp.gate.lora_B.weight"] = drawn("gate", {4, 2});
  EXPECT_TRUE(
      mentions(refusal(adapter),
               {scratch.path().string(), "layers.0.self_attn.q_proj.lora_A.weight: found [4,32], expected [2,32]",
                "experts.0.w1.lora_B.weight: found [32,2], expected [40,2]",
                "experts.1.w2.lora_B.weight: missing, expected [32,2]",
                "self_attn.k_proj.lora_A.weight: missing, though adapter_config.json names it",
                "v_proj.lora_A.weight: found I32", "experts.4.w1.lora_A.weight\": found, but it is no adapter",
                "lm_head.weight\": found, but it is of an adapter with a trained embedding or head",
                "lora_magnitude_vector\": found, but it is of DoRA",
                "mlp.gate: found beside model.layers.0.block_sparse_moe.gate, which is the same matrix"}));
}

TEST_F(PeftTest, NumbersThatAreNotFiniteAreRefused) {
  AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  EXPECT_NO_THROW(loaded(adapter, everywhere()));
  adapter.tensors.at(layer_prefix + "self_attn.o_proj.lora_B.weight").numbers[3] = std::nanf("");
  expect_refused([&] { loaded(adapter, everywhere()); },
                 {"adapter_model.safetensors: " + layer_prefix + "self_attn.o_proj.lora_B.weight: found nan"});
}

TEST_F(PeftTest, AnotherBaseIsRefused) {
  const AdapterFixture adapter = AdapterFixture::of(model, everywhere());
  model.hidden_size = 64;
  EXPECT_TRUE(mentions(refusal(adapter), {"found [2,32], expected [2,64]", "and "}));
}

TEST_F(PeftTest, PicklesAndWhatIsNoAdapterAreRefused) {
  AdapterFixture::of(model, everywhere()).write(scratch.path());
  fs::rename(scratch / kAdapterFile, scratch / "adapter_model.bin");
  const auto read = [&] { read_peft_config(scratch.path(), model); };
  expect_refused(read, {"adapter_model.bin", "pickle", "save_pretrained", "adapter_model.safetensors"});
  fs::remove(scratch / "adapter_model.bin");
  expect_refused(read, {"holds no adapter_model.safetensors"});
  fs::remove(scratch / kAdapterConfigFile);
  expect_refused(read, {"holds no adapter_config.json"});
  AdapterFixture none = AdapterFixture::of(model, everywhere());
  none.tensors.clear();
  none.config["target_modules"] = "all-linear";
  EXPECT_TRUE(mentions(refusal(none), {"no adapter at all"}));
}

// Of all experts in one tensor, in the order that PEFT 0.18 wrote and in the later one.
class FusedPeft : public PeftTest {
 protected:
  AdapterFixture fused(bool swapped) const {
    AdapterFixture adapter;
    adapter.config = {{"peft_type", "LORA"},
                      {"r", 2},
                      {"lora_alpha", 6},
                      {"target_modules", nullptr},
                      {"target_parameters", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}}};
    const std::int64_t all = 2 * model.num_local_experts, d = model.hidden_size, f = model.intermediate_size;
    for (int l = 0; l < 2; ++l)
      for (const auto& [name, in, out] : {std::tuple(".base_layer", d, 2 * f), std::tuple("", f, d)}) {
        const std::string path = fmt::format("{}model.layers.{}.mlp.experts{}", kPeftPrefix, l, name);
        adapter.tensors[path + ".lora_A.weight"] = drawn(path, {all, swapped ? out : in});
        adapter.tensors[path + ".lora_B.weight"] = drawn(path, {swapped ? in : out, all}, 2);
      }
    return adapter;
  }
  LoraConfig experts() const {
    LoraConfig lora = everywhere();
    lora.target_modules = {"w1", "w2", "w3"};
    return lora;
  }
};

TEST_F(FusedPeft, HasEachExpertsMatrices) {
  for (const bool swapped : {false, true}) {
    const AdapterFixture adapter = fused(swapped);
    const auto slices = loaded(adapter, experts());
    EXPECT_EQ(slices.size(), 2u * 2 * 3 * 4);
    const std::string path = layer_prefix + "mlp.experts.base_layer";
    const auto& a = adapter.tensors.at(path + (swapped ? ".lora_B.weight" : ".lora_A.weight")).numbers;
    const auto& b = adapter.tensors.at(path + (swapped ? ".lora_A.weight" : ".lora_B.weight")).numbers;
    const std::string w3 = "model.layers.0.block_sparse_moe.experts.3.w3";
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < 32; ++i)
        ASSERT_EQ(slices.at(w3 + ".lora_A.weight")[static_cast<std::size_t>(j * 32 + i)],
                  a[static_cast<std::size_t>(swapped ? i * 8 + j * 4 + 3 : (3 * 2 + j) * 32 + i)]);
      for (int o = 0; o < 40; ++o)
        ASSERT_EQ(slices.at(w3 + ".lora_B.weight")[static_cast<std::size_t>(o * 2 + j)],
                  b[static_cast<std::size_t>(swapped ? (3 * 2 + j) * 80 + 40 + o : (40 + o) * 8 + j * 4 + 3)]);
    }
    EXPECT_EQ(slices.at("model.layers.0.block_sparse_moe.experts.3.w1.lora_A.weight"),
              slices.at(w3 + ".lora_A.weight"));
  }
}

TEST_F(FusedPeft, WhereInIsOutTheVersionTellsTheOrder) {
  model.intermediate_size = 16;  // gate_up_proj is [32,32]
  AdapterFixture adapter = fused(false);
  EXPECT_TRUE(
      mentions(refusal(adapter), {"base_layer.lora_A.weight: in and out are both 32", "peft_version", "nothing"}));
  for (const char* unknown : {"0.19.0", "", "new", "0."}) {
    adapter.config["peft_version"] = unknown;
    EXPECT_TRUE(mentions(refusal(adapter), {"peft_version"})) << unknown;
  }
  adapter.config["peft_version"] = "0.21.2";
  const auto later = loaded(adapter, experts());
  adapter.config["peft_version"] = "0.18.1";
  adapter.tensors = fused(true).tensors;
  EXPECT_NE(loaded(adapter, experts()), later);
}

TEST_F(FusedPeft, OneParameterAloneIsNamed) {
  AdapterFixture adapter = fused(false);
  std::erase_if(adapter.tensors, [](const auto& entry) { return entry.first.find("base_layer") != std::string::npos; });
  EXPECT_TRUE(mentions(refusal(adapter), {"experts.0.w1.lora_A.weight: missing"}));
  adapter.config["target_parameters"] = {"down_proj"};
  EXPECT_EQ(read(adapter).lora.target_modules, std::vector<std::string>{"w2"});
  adapter.config["target_parameters"] = {"gate_up_proj"};
  EXPECT_TRUE(mentions(refusal(adapter), {"mlp.experts.lora_A.weight: found [8,40], expected [8,32]"}));
  adapter.config.update({{"target_parameters", nullptr}, {"target_modules", ".*"}});
  EXPECT_TRUE(mentions(refusal(adapter), {"target_parameters names neither"}));
}

TEST_F(PeftTest, WhatIsWrittenReadsBack) {
  LoraConfig lora = everywhere();
  const auto again = [&] {
    AdapterFixture adapter = AdapterFixture::of(model, lora);
    adapter.write(scratch.path());
    write_peft_config(scratch.path(), lora, "", model);
    return read_peft_config(scratch.path(), model).lora;
  };
  EXPECT_EQ(again(), lora);
  lora.layers = {1, 1};
  EXPECT_EQ(again(), lora);
  lora.layers = {0, 1};
  EXPECT_TRUE(again().layers.empty()) << "all of them";
  lora.layers = {};
  lora.alpha = 2.5;
  EXPECT_EQ(again(), lora);
  lora.dropout = 0.1;
  EXPECT_EQ(again().dropout, 0) << "PEFT loads none on fused experts";
  lora.rslora = true;
  EXPECT_FALSE(again().rslora) << "PEFT would double r and alpha of w1 and w3";
  EXPECT_NEAR(again().scale(), lora.scale(), 1e-15 * lora.scale());
  lora.target_modules = {"q_proj", "o_proj"};
  EXPECT_EQ(again(), lora);
}

}  // namespace
}  // namespace smoe
