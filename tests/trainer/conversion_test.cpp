// Runs of 0 steps from the weights of a directory: what they hold, what they write, and how training goes on from that.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "tests/support/message_of.h"
#include "tests/trainer/foreign_weights.h"
#include "trainer/machine.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

class Conversion : public ForeignWeights {
 protected:
  TrainerConfig conversion(const std::string& output, const fs::path& from) const {
    TrainerConfig c = config(output);
    c.model = ModelConfig{};
    c.model.from = from.string();
    c.train.steps = 0;
    return c;
  }
  fs::path converted(const std::string& output) const { return checkpoint(output, 0) / "model"; }
  static std::vector<float> values_of(const fs::path& directory, const std::string& name) {
    const TensorDirectory files(directory);
    std::vector<float> values(static_cast<std::size_t>(files.info(name).elements()));
    files.read_f32(name, values.data(), 0, files.info(name).elements());
    return values;
  }
  Json config_json(const std::string& output, std::int64_t step) const {
    return read_json_file(checkpoint(output, step) / "model" / "config.json");
  }
};

TEST_F(Conversion, HoldsWeightsAndNothingElse) {
  const auto c = conversion("converted", exported());
  const std::uint64_t weights_alone = training_state_bytes(test::tiny_model(), {}, {"*"});
  const RunParts parts = assemble(c, mesh(), make_cpu_backend(1));
  EXPECT_TRUE(parts.converts);
  EXPECT_EQ(weights_alone, 4u * static_cast<std::uint64_t>(count_parameters(test::tiny_model()).total));
  // Beside them the table of rotary angles, and what aligns.
  EXPECT_LE(parts.training.persistent->high_water_bytes(), weights_alone + 16 * 8 * 4 + 4096);
}

TEST_F(Conversion, WritesTheSameBitsWithoutMoments) {
  ASSERT_EQ(train(conversion("converted", exported())), 0);
  EXPECT_EQ(sha256_file(converted("converted") / "model.safetensors"), sha256_file(exported() / "model.safetensors"));
  EXPECT_TRUE(TensorDirectory(checkpoint("converted", 0) / "optimizer").names().empty());
  EXPECT_NE(log_of("converted").find("no moments"), std::string::npos);
}

TEST_F(Conversion, TrainingGoesOnFromItAsFromTheDirectory) {
  auto whole = conversion("whole", exported());
  whole.train.steps = 3;
  ASSERT_EQ(train(whole), 0);
  auto parts = conversion("parts", exported());
  ASSERT_EQ(train(parts), 0);
  parts.train.steps = 3;
  ASSERT_EQ(train(parts), 0);
  EXPECT_EQ(state_hash("parts", 3), state_hash("whole", 3));
}

TEST_F(Conversion, OfACheckpointThatWasTrainedKeepsItsMoments) {
  auto trained = conversion("trained", exported());
  trained.train.steps = 2;
  ASSERT_EQ(train(trained), 0);
  auto again = conversion("again", exported());
  again.checkpoint.resume = checkpoint("trained", 2).string();
  ASSERT_EQ(train(again), 0);
  EXPECT_EQ(state_hash("again", 2), state_hash("trained", 2));
  EXPECT_FALSE(TensorDirectory(checkpoint("again", 2) / "optimizer").names().empty());
  // In its own directory there is a checkpoint: nothing is converted, and nothing written.
  trained.train.steps = 0;
  const RunParts parts = assemble(trained, mesh(), make_cpu_backend(1));
  EXPECT_FALSE(parts.converts);
}

TEST_F(Conversion, ToBf16AndBackRoundsOnce) {
  auto half = conversion("half", exported());
  half.checkpoint.export_dtype = ExportType::bf16;
  ASSERT_EQ(train(half), 0);
  auto wide = conversion("wide", converted("half"));
  wide.checkpoint.export_dtype = ExportType::fp32;
  wide.train.precision = PrecisionChoice::bf16;
  ASSERT_EQ(train(wide), 0);
  for (const auto& [name, tensor] : weights()) {
    std::vector<float> rounded = values_of(exported(), name);
    for (float& x : rounded) x = f32_from_bf16(bf16_from_f32(x));
    EXPECT_EQ(values_of(converted("half"), name), rounded) << name;
    EXPECT_EQ(values_of(converted("wide"), name), rounded) << name;
    EXPECT_EQ(TensorDirectory(converted("half")).info(name).type, TensorType::bf16);
    EXPECT_EQ(TensorDirectory(converted("wide")).info(name).type, TensorType::f32);
  }
  // An f32 export of a run in bf16 is what it read, not what bf16 makes of it.
  auto exact = conversion("exact", exported());
  exact.train.precision = PrecisionChoice::bf16;
  exact.checkpoint.export_dtype = ExportType::fp32;
  ASSERT_EQ(train(exact), 0);
  EXPECT_EQ(sha256_file(converted("exact") / "model.safetensors"), sha256_file(exported() / "model.safetensors"));
}

TEST_F(Conversion, F16IsWrittenAsF32OfTheSameNumbers) {
  NamedWeights all = weights();
  const fs::path directory = write(all);
  fs::remove(directory / "model.safetensors");
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : all) specs.push_back({name, TensorType::f16, tensor.first});
  auto writer = TensorDirectoryWriter::create(directory, specs);
  for (auto& [name, tensor] : all) {
    std::vector<std::uint16_t> halves;
    for (float& x : tensor.second) {
      halves.push_back(
          static_cast<std::uint16_t>(halves.size() * 977 % 0x7c00));  // all that are finite, subnormal ones too
      x = f32_from_f16(halves.back());
    }
    writer.write_raw(name, 0, std::as_bytes(std::span(halves)));
  }
  writer.finish();
  ASSERT_EQ(train(conversion("wide", directory)), 0);
  for (const auto& [name, tensor] : all) EXPECT_EQ(values_of(converted("wide"), name), tensor.second) << name;
}

TEST_F(Conversion, FilesAreSplitWhereTheyWouldPassTheLimit) {
  auto c = conversion("split", exported());
  c.checkpoint.max_shard_bytes = 20'000;
  ASSERT_EQ(train(c), 0);
  const TensorDirectory files(converted("split"));
  ASSERT_GT(files.files().size(), 5u);
  for (const fs::path& file : files.files()) EXPECT_LT(fs::file_size(file), 20'000u + 8192) << file;
  EXPECT_TRUE(fs::exists(converted("split") / kWeightsIndexFile));
  EXPECT_EQ(logits_of(converted("split")), logits_of(exported()));
  // A trained run's optimizer too, and it resumes from that.
  c.train.steps = 2;
  ASSERT_EQ(train(c), 0);
  EXPECT_GT(TensorDirectory(checkpoint("split", 2) / "optimizer").files().size(), 10u);
  c.train.steps = 4;
  ASSERT_EQ(train(c), 0);
  auto whole = conversion("whole", exported());
  whole.train.steps = 4;
  ASSERT_EQ(train(whole), 0);
  for (const auto& [name, tensor] : weights())
    EXPECT_EQ(values_of(checkpoint("split", 4) / "model", name), values_of(checkpoint("whole", 4) / "model", name));
}

TEST_F(Conversion, KeysThatNothingHereDecidesGoFromRunToRun) {
  const Json foreign = {
      {"transformers_version", "4.57.1"},   {"dtype", "float16"},
      {"_name_or_path", "mistralai/other"}, {"attention_dropout", 0.125},
      {"router_aux_loss_coef", 0.0625},     {"my_note", {{"from", "afar"}, {"list", {1, 2.5, nullptr}}}}};
  const fs::path source = write(weights(), foreign);
  const auto expect_kept = [&](const Json& found) {
    EXPECT_EQ(found.at("my_note"), foreign.at("my_note"));
    EXPECT_EQ(found.at("transformers_version"), "4.57.1");
    EXPECT_EQ(found.at("attention_dropout"), 0.125);
    EXPECT_EQ(found.at("torch_dtype"), "float32");
    EXPECT_FALSE(found.contains("dtype"));
    EXPECT_FALSE(found.contains("_name_or_path"));
  };
  auto first = conversion("first", source);
  first.train.steps = 1;
  ASSERT_EQ(train(first), 0);
  expect_kept(config_json("first", 1));
  first.train.steps = 2;
  ASSERT_EQ(train(first), 0);
  expect_kept(config_json("first", 2));
  // A run trains by a coefficient of its own, a conversion by none.
  EXPECT_NE(config_json("first", 2).at("router_aux_loss_coef"), 0.0625);
  ASSERT_EQ(train(conversion("as-it-was", source)), 0);
  EXPECT_EQ(config_json("as-it-was", 0).at("router_aux_loss_coef"), 0.0625);
  // From the run, and resumed by one that names no directory.
  ASSERT_EQ(train(conversion("second", root() / "first")), 0);
  expect_kept(config_json("second", 0));
  auto third = config("third");
  third.checkpoint.resume = checkpoint("first", 2).string();
  third.train.steps = 3;
  ASSERT_EQ(train(third), 0);
  expect_kept(config_json("third", 3));
}

using ConversionBadInput = Conversion;

TEST_F(ConversionBadInput, TheDirectoryThatIsReadIsNotWrittenInto) {
  const fs::path source = write(weights());
  fs::create_directory_symlink(source, root() / "link");
  for (const fs::path& output : {source, source / "runs" / "a", root() / "link"}) {
    auto c = conversion("unused", source);
    c.train.output_dir = output.string();
    EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"train.output_dir", output.c_str(), "model.from"}));
  }
  EXPECT_FALSE(fs::exists(source / "runs"));
  EXPECT_FALSE(fs::exists(source / "train.log"));
}

TEST_F(ConversionBadInput, QuantisedWeightsAreRefusedByName) {
  NamedWeights all = weights();
  all["model.layers.0.self_attn.q_proj.qweight"] = {{4, 32}, std::vector<float>(128)};
  const fs::path tensors = write(all);
  EXPECT_TRUE(mentions(message_of([&] { train(conversion("out", tensors)); }),
                       {"model.safetensors", "quantised", "q_proj.qweight", "quantised from"}));
  for (const auto& [method, said] :
       {std::pair{Json{{"quant_method", "gptq"}, {"bits", 4}}, "\"gptq\", 4 bits"},
        std::pair{Json{{"quant_method", "awq"}, {"bits", 4}}, "\"awq\", 4 bits"},
        std::pair{Json{{"load_in_4bit", true}}, "bitsandbytes"}, std::pair{Json::object(), "no quant_method"}}) {
    const fs::path configured = write(weights(), {{"quantization_config", method}});
    EXPECT_TRUE(mentions(message_of([&] { train(conversion("out", configured)); }),
                         {"config.json", "quantization_config", "quantised", said}));
  }
  EXPECT_FALSE(fs::exists(root() / "out" / "checkpoints")) << "nothing half-written";
}

}  // namespace
}  // namespace smoe
