// Directories in Mistral's own format: params.json, other names, rows of queries and keys in another order. What is read must
// be the same weights, bit for bit.
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "model/mixtral.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/foreign_weights.h"
#include "trainer/checkpoint/mistral_params.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::spill;

// Of tests/support/tiny_run.h.
Json tiny_params() {
  return {{"dim", 32},
          {"n_layers", 2},
          {"head_dim", 8},
          {"hidden_dim", 40},
          {"n_heads", 4},
          {"n_kv_heads", 2},
          {"norm_eps", 1e-5},
          {"vocab_size", 61},
          {"max_seq_len", 64},
          {"rope_theta", 1e6},
          {"moe", {{"num_experts", 4}, {"num_experts_per_tok", 2}}}};
}

enum class Experts { one_by_one, all_in_one };

class MistralFormat : public ForeignWeights {
 protected:
  // The exported weights as Mistral would have saved them, worked out by hand and not as the code under test does it.
  NamedWeights native(Experts experts) {
    const NamedWeights ours = weights();
    NamedWeights theirs;
    theirs["tok_embeddings.weight"] = ours.at("model.embed_tokens.weight");
    theirs["norm.weight"] = ours.at("model.norm.weight");
    theirs["output.weight"] = ours.at("lm_head.weight");
    for (int l = 0; l < 2; ++l) {
      const std::string hf = fmt::format("model.layers.{}.", l), to = fmt::format("layers.{}.", l);
      theirs[to + "attention_norm.weight"] = ours.at(hf + "input_layernorm.weight");
      theirs[to + "ffn_norm.weight"] = ours.at(hf + "post_attention_layernorm.weight");
      theirs[to + "attention.wq.weight"] = neighbours(ours.at(hf + "self_attn.q_proj.weight"));
      theirs[to + "attention.wk.weight"] = neighbours(ours.at(hf + "self_attn.k_proj.weight"));
      theirs[to + "attention.wv.weight"] = ours.at(hf + "self_attn.v_proj.weight");
      theirs[to + "attention.wo.weight"] = ours.at(hf + "self_attn.o_proj.weight");
      const std::string moe = hf + "block_sparse_moe.";
      theirs[to + (experts == Experts::one_by_one ? "feed_forward.gate.weight" : "block_sparse_moe.gate.weight")] =
          ours.at(moe + "gate.weight");
      for (const char* matrix : {"w1", "w2", "w3"})
        for (int e = 0; e < 4; ++e) {
          const auto& [shape, values] = ours.at(fmt::format("{}experts.{}.{}.weight", moe, e, matrix));
          if (experts == Experts::one_by_one) {
            theirs[fmt::format("{}feed_forward.experts.{}.{}.weight", to, e, matrix)] = {shape, values};
            continue;
          }
          auto& all = theirs[fmt::format("{}block_sparse_moe.{}", to, matrix)];
          all.first = {4 * 40, 32};
          for (int f = 0; f < 40; ++f)
            for (int d = 0; d < 32; ++d)
              all.second.push_back(std::string(matrix) == "w2" ? values[static_cast<std::size_t>(d * 40 + f)]
                                                               : values[static_cast<std::size_t>(f * 32 + d)]);
        }
    }
    return theirs;
  }

  // A directory of them: consolidated files and params.json, and no config.json.
  fs::path write_native(const NamedWeights& all, const Json& params = tiny_params()) {
    const fs::path directory = write(all);
    fs::remove(directory / "config.json");
    fs::rename(directory / kSingleWeightsFile, directory / kMistralWeightsFile);
    write_json_file(directory / mistral_params_file, params);
    return directory;
  }

  std::string refusal(const Json& change) {
    Json params = tiny_params();
    params.update(change);
    write_json_file(root() / mistral_params_file, params);
    return message_of([&] { read_mistral_params(root() / mistral_params_file); });
  }

 private:
  // Heads of 8 rows: row i of the first half and row i of the second become neighbours.
  static std::pair<std::vector<std::int64_t>, std::vector<float>> neighbours(
      const std::pair<std::vector<std::int64_t>, std::vector<float>>& tensor) {
    auto out = tensor;
    const std::int64_t rows = tensor.first[0];
    for (std::int64_t head = 0; head < rows; head += 8)
      for (std::int64_t i = 0; i < 4; ++i)
        for (std::int64_t part = 0; part < 2; ++part)
          for (std::int64_t c = 0; c < 32; ++c)
            out.second[static_cast<std::size_t>((head + 2 * i + part) * 32 + c)] =
                tensor.second[static_cast<std::size_t>((head + 4 * part + i) * 32 + c)];
    return out;
  }
};

TEST_F(MistralFormat, GivesTheSameLogitsBitForBit) {
  const auto expected = logits_of(exported());
  for (const Experts experts : {Experts::one_by_one, Experts::all_in_one}) {
    const NamedWeights all = native(experts);
    ASSERT_NE(all.at("layers.0.attention.wq.weight"), weights().at("model.layers.0.self_attn.q_proj.weight"));
    EXPECT_EQ(logits_of(write_native(all)), expected);
    EXPECT_EQ(logits_of(write(all)), expected) << "its names in a Hugging Face directory";
  }
}

TEST_F(MistralFormat, AConfigJsonBesideItCounts) {
  const fs::path directory = write_native(native(Experts::one_by_one));
  Json config = read_json_file(exported() / "config.json");
  config["eos_token_id"] = 7;
  write_json_file(directory / "config.json", config);
  EXPECT_EQ(read_hf_config(directory).eos, std::vector<std::int32_t>{7});
  EXPECT_EQ(logits_of(directory), logits_of(exported()));
}

TEST_F(MistralFormat, EveryRankReadsItsSlices) {
  const auto backend = make_cpu_backend(1);
  const auto slices = [&](const fs::path& directory, const Layout& layout, int rank) {
    const Mesh mesh = Mesh::placed(layout, rank);
    Arena arena(*backend);
    ParameterSet parameters = declare_parameters(test::tiny_model(), mesh);
    parameters.allocate(*backend, arena, mesh, false);
    std::map<std::string, std::vector<float>> found;
    load_weights(directory, *backend, test::tiny_model(), parameters);
    for (const Parameter& p : parameters) found[p.name].assign(p.value.f32(), p.value.f32() + p.value.elements());
    return found;
  };
  for (const Experts experts : {Experts::one_by_one, Experts::all_in_one}) {
    const fs::path directory = write_native(native(experts));
    for (const Layout& layout : {Layout{.ranks = 2, .tp = 2, .ep = 1}, Layout{.ranks = 4, .tp = 2, .ep = 4}})
      for (int rank = 0; rank < layout.ranks; ++rank)
        EXPECT_EQ(slices(directory, layout, rank), slices(exported(), layout, rank)) << "rank " << rank;
  }
}

TEST_F(MistralFormat, ARunFromItWritesAHuggingFaceDirectoryOfTheSameBits) {
  auto c = config("converted");
  c.model = ModelConfig{};
  c.model.from = write_native(native(Experts::all_in_one)).string();
  c.train.steps = 0;
  ASSERT_EQ(train(c), 0);
  const fs::path model = checkpoint("converted", 0) / "model";
  EXPECT_EQ(sha256_file(model / "model.safetensors"), sha256_file(exported() / "model.safetensors"));
  EXPECT_EQ(read_hf_config(model).model, read_hf_config(exported()).model);
}

TEST_F(MistralFormat, TheHeadMayBeTiedToTheEmbedding) {
  NamedWeights all = native(Experts::one_by_one);
  all.at("output.weight") = all.at("tok_embeddings.weight");
  const auto expected = logits_of(write_native(all));
  all.erase("output.weight");
  Json params = tiny_params();
  params["tied_embeddings"] = true;
  EXPECT_EQ(logits_of(write_native(all, params)), expected);
  const fs::path untied = write_native(all);
  EXPECT_TRUE(mentions(message_of([&] { logits_of(untied); }), {"lm_head.weight: missing"}));
}

// As released with 8x7B, less what tests have added.
TEST_F(MistralFormat, WhatParamsLeaveOutIsMistralInferencesOrSaid) {
  Json params = tiny_params();
  params.erase("rope_theta");
  params.erase("max_seq_len");
  const auto read = [&] {
    write_json_file(root() / mistral_params_file, params);
    return read_hf_config(root());
  };
  HfConfig found = read();
  EXPECT_EQ(found.model.rope_theta, 1e6);
  EXPECT_EQ(found.model.max_position_embeddings, 32768);
  EXPECT_EQ(found.model.num_local_experts, 4);
  EXPECT_EQ(found.model.head_size(), 8);
  ASSERT_EQ(found.warnings.size(), 2u);
  EXPECT_TRUE(mentions(found.warnings[0], {"params.json", "rope_theta", "1000000"}));
  EXPECT_TRUE(mentions(found.warnings[1], {"params.json", "32768"}));
  params["sliding_window"] = "4096";  // as text, in some
  found = read();
  EXPECT_EQ(found.model.sliding_window, 4096);
  EXPECT_EQ(found.model.rope_theta, 1e4);
  params["sliding_window"] = "wide";
  EXPECT_TRUE(mentions(message_of(read), {"params.json", "sliding_window", "\"wide\""}));
}

using MistralFormatBadInput = MistralFormat;

TEST_F(MistralFormatBadInput, ParamsThatAreNoMixtralsOrDamaged) {
  EXPECT_TRUE(mentions(refusal({{"moe", nullptr}}), {"params.json", "moe", "dense"}));
  EXPECT_TRUE(mentions(refusal({{"moe", {{"num_experts", 4}}}}), {"params.json", "num_experts_per_tok", "missing"}));
  EXPECT_TRUE(mentions(refusal({{"moe", {{"num_experts", 4}, {"num_experts_per_tok", 2}, {"num_shared_experts", 1}}}}),
                       {"num_shared_experts", "found 1"}));
  EXPECT_TRUE(mentions(refusal({{"quantization", {{"qformat_weight", "fp8_e4m3"}}}}), {"quantization", "quantised"}));
  EXPECT_TRUE(mentions(refusal({{"use_biases", true}}), {"use_biases", "found true"}));
  EXPECT_TRUE(mentions(refusal({{"model_type", "mamba"}}), {"model_type", "mamba", "transformer"}));
  EXPECT_TRUE(mentions(refusal({{"vision_encoder", {{"hidden_size", 4}}}}), {"vision_encoder", "an object"}));
  EXPECT_TRUE(mentions(refusal({{"dim", "32"}}), {"params.json", "\"dim\"", "an integer"}));
  EXPECT_TRUE(mentions(refusal({{"norm_eps", 2}}), {"norm_eps", "(0, 1)"}));
  EXPECT_TRUE(mentions(refusal({{"rope_theta", 0}}), {"rope_theta", "above 0"}));
  EXPECT_TRUE(mentions(refusal({{"n_kv_heads", 3}}), {"params.json", "num_key_value_heads"}));
}

TEST_F(MistralFormatBadInput, PicklesAreRefusedByName) {
  const fs::path directory = root() / "pickled";
  fs::create_directory(directory);
  write_json_file(directory / mistral_params_file, tiny_params());
  spill(directory / "consolidated.00.pth", "\x80\x02");
  EXPECT_EQ(find_model_directory(directory), directory);
  EXPECT_TRUE(mentions(message_of([&] { logits_of(directory); }), {"consolidated.00.pth", "pickle", "Convert it"}));
  EXPECT_TRUE(mentions(message_of([&] { find_model_directory(directory / "consolidated.00.pth"); }),
                       {"consolidated.00.pth: is a file", "directory", "pickle"}));
}

}  // namespace
}  // namespace smoe
