// Model directories as other software writes them: names, types, tied embeddings. What is loaded must be the same weights.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "tests/support/message_of.h"
#include "tests/trainer/foreign_weights.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using Weights = NamedWeights;

TEST_F(ForeignWeights, NamesOfExpertsOneByOne) {
  const auto expected = logits_of(exported());
  const std::pair<std::string, std::string> block{".block_sparse_moe.", ".mlp."};
  const std::vector<std::pair<std::string, std::string>> spelled{
      {".w1.", ".gate_proj."}, {".w2.", ".down_proj."}, {".w3.", ".up_proj."}};
  std::vector<std::pair<std::string, std::string>> both = spelled;
  both.push_back(block);
  for (const auto& changes : {std::vector{block}, spelled, both}) {
    const Weights all = renamed(weights(), changes);
    ASSERT_FALSE(all.contains("model.layers.0.block_sparse_moe.experts.0.w1.weight"));
    EXPECT_EQ(logits_of(write(all)), expected) << all.begin()->first;
  }
}

TEST_F(ForeignWeights, FusedExpertsUnderEitherBlock) {
  const auto expected = logits_of(exported());
  for (const char* block : {".mlp.", ".block_sparse_moe."}) {
    const Weights single = weights();
    Weights fused = renamed(single, {{".block_sparse_moe.gate.", std::string(block) + "gate."}});
    std::erase_if(fused, [](const auto& entry) { return entry.first.find(".experts.") != std::string::npos; });
    for (int layer = 0; layer < 2; ++layer) {
      std::vector<float> gate_up, down;
      for (int expert = 0; expert < 4; ++expert)
        for (const auto& [matrix, to] :
             {std::pair{"w1", &gate_up}, std::pair{"w3", &gate_up}, std::pair{"w2", &down}}) {
          const auto& values =
              single.at(fmt::format("model.layers.{}.block_sparse_moe.experts.{}.{}.weight", layer, expert, matrix))
                  .second;
          to->insert(to->end(), values.begin(), values.end());
        }
      fused[fmt::format("model.layers.{}{}experts.gate_up_proj", layer, block)] = {{4, 80, 32}, gate_up};
      fused[fmt::format("model.layers.{}{}experts.down_proj", layer, block)] = {{4, 32, 40}, down};
    }
    EXPECT_EQ(logits_of(write(fused)), expected) << block;
  }
}

TEST_F(ForeignWeights, AnExpertUnderTwoNamesIsRefused) {
  Weights all = weights();
  all["model.layers.0.mlp.experts.0.w1.weight"] = all.at("model.layers.0.block_sparse_moe.experts.0.w1.weight");
  const fs::path directory = write(all);
  EXPECT_TRUE(mentions(message_of([&] { logits_of(directory); }),
                       {"mlp.experts.0.w1.weight: found, but a model of this shape"}));
}

TEST_F(ForeignWeights, TiedEmbeddingsGiveBothTheirValues) {
  Weights all = weights();
  all["lm_head.weight"].second = all["model.embed_tokens.weight"].second;
  const auto expected = logits_of(write(all));
  const Json tied = {{"tie_word_embeddings", true}};
  EXPECT_EQ(logits_of(write(all, tied)), expected) << "both are there";
  for (const char* absent : {"lm_head.weight", "model.embed_tokens.weight"}) {
    Weights one = all;
    one.erase(absent);
    EXPECT_EQ(logits_of(write(one, tied)), expected) << "without " << absent;
    const fs::path untied = write(one);
    EXPECT_TRUE(mentions(message_of([&] { logits_of(untied); }), {absent, "missing"}));
  }
  EXPECT_EQ(logits_of(write(weights(), tied)), logits_of(exported()))
      << "both are there and differ: they are not tied, whatever is said";
}

TEST_F(ForeignWeights, TrainingFromTiedEmbeddingsExportsTwoTensors) {
  Weights all = weights();
  all.erase("lm_head.weight");
  auto c = config("untied");
  c.model.from = write(all, {{"tie_word_embeddings", true}}).string();
  c.train.steps = 3;
  ASSERT_EQ(train(c), 0);
  EXPECT_TRUE(
      mentions(read_file(root() / "untied" / "train.log", 1 << 20), {"warning", "tie_word_embeddings is true"}));
  const fs::path model = checkpoint("untied", 3) / "model";
  EXPECT_EQ(read_json_file(model / "config.json").at("tie_word_embeddings"), false);
  const TensorDirectory directory(model);
  std::vector<float> embedding(61 * 32), head(61 * 32);
  directory.read_f32("model.embed_tokens.weight", embedding.data(), 0, 61 * 32);
  directory.read_f32("lm_head.weight", head.data(), 0, 61 * 32);
  EXPECT_NE(embedding, head);
}

TEST_F(ForeignWeights, F64IsReadAndIntegersAreRefusedWithTheirFile) {
  const Weights all = weights();
  const auto expected = logits_of(exported());
  for (const auto type : {TensorType::f64, TensorType::i64}) {
    const fs::path directory = write(all);
    fs::remove(directory / "model.safetensors");
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : all)
      specs.push_back({name, name == "lm_head.weight" ? type : TensorType::f32, tensor.first});
    auto writer = TensorDirectoryWriter::create(directory, specs);
    for (const auto& [name, tensor] : all) {
      const std::vector<double> wide(tensor.second.begin(), tensor.second.end());
      if (name == "lm_head.weight")
        writer.write_raw(name, 0, std::as_bytes(std::span(wide)));
      else
        writer.write_f32(name, 0, tensor.second);
    }
    writer.finish();
    if (type == TensorType::f64)
      EXPECT_EQ(logits_of(directory), expected);
    else
      EXPECT_TRUE(mentions(message_of([&] { logits_of(directory); }),
                           {"model.safetensors: lm_head.weight: found I64, expected F32"}));
  }
}

TEST_F(ForeignWeights, MessagesNameTheFileThatHoldsATensor) {
  Weights all = weights();
  all["model.norm.weight"] = {{16}, std::vector<float>(16)};
  all["model.odd"] = {{1}, {0}};
  const fs::path directory = write(all, Json::object(), 20'000);
  const TensorDirectory files(directory);
  ASSERT_GT(files.files().size(), 3u);
  const std::string message = message_of([&] { logits_of(directory); });
  const auto file = [&](const char* name) { return fs::path(files.file_of(name)).filename().string(); };
  EXPECT_NE(file("model.norm.weight"), file("model.embed_tokens.weight"));
  EXPECT_TRUE(mentions(message, {directory.c_str(),
                                 (file("model.norm.weight") + ": model.norm.weight: found [16], expected [32]").c_str(),
                                 (file("model.odd") + ": model.odd: found, but").c_str()}));
}

}  // namespace
}  // namespace smoe
