// smoe resize: what a vocabulary's change leaves alone, what new rows are, and what is refused.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/foreign_weights.h"
#include "trainer/checkpoint/mistral_params.h"
#include "trainer/convert/resize.h"
#include "trainer/generate.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::slurp;
using test::spill;

class Resize : public ForeignWeights {
 protected:
  fs::path resized(const fs::path& model, std::int64_t vocabulary) {
    const fs::path out = root() / fmt::format("resized-{}", made_++);
    resize({.model = model, .vocabulary = vocabulary, .out = out});
    return out;
  }
  std::string refusal(const fs::path& model, std::int64_t vocabulary) {
    const fs::path out = root() / "refused";
    const std::string message = message_of([&] { resize({.model = model, .vocabulary = vocabulary, .out = out}); });
    EXPECT_FALSE(fs::exists(out));
    EXPECT_FALSE(fs::exists(root() / ".refused.unfinished"));
    return message;
  }
  // The same numbers, rounded, in a directory of another type.
  fs::path of_type(TensorType type) {
    const fs::path directory = write(weights());
    fs::remove(directory / "model.safetensors");
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : weights()) specs.push_back({name, type, tensor.first});
    auto writer = TensorDirectoryWriter::create(directory, specs);
    for (const auto& [name, tensor] : weights()) writer.write_f32(name, 0, tensor.second);
    writer.finish();
    return directory;
  }

 private:
  int made_ = 0;
};

std::vector<std::byte> bytes_of_tensor(const TensorDirectory& files, const std::string& name) {
  const auto raw = files.raw(name);
  return {raw.begin(), raw.end()};
}

bool has_vocabulary(const std::string& name) { return name == "model.embed_tokens.weight" || name == "lm_head.weight"; }

// By hand, in long double.
std::vector<float> mean_of_rows(const TensorDirectory& files, const std::string& name, std::int64_t rows) {
  std::vector<float> numbers(static_cast<std::size_t>(rows) * 32), mean(32);
  files.read_f32(name, numbers.data(), 0, rows * 32);
  for (std::size_t c = 0; c < 32; ++c) {
    long double sum = 0;
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) sum += numbers[r * 32 + c];
    mean[c] = static_cast<float>(sum / rows);
  }
  return mean;
}

TEST_F(Resize, RowsAreAddedAsTheMeanOfAllAndNothingElseChanges) {
  for (const TensorType type : {TensorType::f32, TensorType::bf16, TensorType::f16, TensorType::f64}) {
    SCOPED_TRACE(name_of(type));
    const fs::path source = of_type(type);
    const fs::path larger = resized(source, 64);
    const TensorDirectory before(source), after(larger);
    ASSERT_EQ(after.names().size(), before.names().size());
    for (const std::string& name : before.names()) {
      const std::vector<std::byte> old = bytes_of_tensor(before, name);
      std::vector<std::byte> found = bytes_of_tensor(after, name);
      EXPECT_EQ(after.info(name).type, type);
      if (has_vocabulary(name)) {
        ASSERT_EQ(after.info(name).shape, (std::vector<std::int64_t>{64, 32}));
        found.resize(old.size());
        const double step = type == TensorType::bf16 ? 0x1p-8 : type == TensorType::f16 ? 0x1p-11 : 0x1p-23;
        const std::vector<float> mean = mean_of_rows(before, name, 61);
        for (std::int64_t row = 61; row < 64; ++row) {
          std::vector<float> values(32);
          after.read_f32(name, values.data(), row * 32, 32);
          for (std::size_t c = 0; c < 32; ++c)
            EXPECT_NEAR(values[c], mean[c], step * std::abs(mean[c]) + 0x1p-24) << name << " column " << c;
        }
      }
      EXPECT_EQ(found, old) << name;
    }
    Json config = read_json_file(source / "config.json");
    config["vocab_size"] = 64;
    EXPECT_EQ(read_json_file(larger / "config.json"), config);
  }
}

TEST_F(Resize, CutAgainItIsWhatItWas) {
  const fs::path source = write(weights(), {{"something", "else"}}, 20'000);
  const fs::path again = resized(resized(source, 100), 61);
  const TensorDirectory before(source), after(again);
  for (const std::string& name : before.names())
    EXPECT_EQ(bytes_of_tensor(after, name), bytes_of_tensor(before, name)) << name;
  EXPECT_EQ(logits_of(again), logits_of(source));
  EXPECT_EQ(read_json_file(again / "config.json"), read_json_file(source / "config.json"));
}

TEST_F(Resize, TheLogitsOfOldIdsStay) {
  InferenceModel small(exported(), mesh(), 16, make_cpu_backend(1));
  InferenceModel large(resized(exported(), 90), mesh(), 16, make_cpu_backend(1));
  const auto logits = [](InferenceModel& model) {
    const std::vector<std::int32_t> ids{1, 5, 60, 7};
    KeptSequence kept(model);
    kept.reserve(4);
    return kept.logits_after(ids);
  };
  const std::vector<float> few = logits(small), many = logits(large);
  ASSERT_EQ(many.size(), 90u);
  for (std::size_t i = 0; i < few.size(); ++i) EXPECT_EQ(many[i], few[i]) << i;
  for (std::size_t i = 61; i < 90; ++i) EXPECT_EQ(many[i], many[61]) << i;
}

TEST_F(Resize, OtherNamesAndATiedHeadAndFusedExpertsAreCarriedAsTheyAre) {
  NamedWeights all = renamed(weights(), {{".block_sparse_moe.", ".mlp."}, {".w1.", ".gate_proj."}});
  all.erase("lm_head.weight");
  const fs::path source = write(all, {{"tie_word_embeddings", true}});
  const fs::path larger = resized(source, 64);
  const TensorDirectory after(larger);
  EXPECT_EQ(after.names().size(), all.size());
  EXPECT_TRUE(after.contains("model.layers.0.mlp.experts.0.gate_proj.weight"));
  EXPECT_EQ(read_json_file(larger / "config.json").at("tie_word_embeddings"), true);
  EXPECT_EQ(read_hf_config(larger).model.vocab_size, 64);
}

TEST_F(Resize, ACheckpointsTokenizerFilesComeAlong) {
  const fs::path source = write(weights());
  spill(source / "tokenizer_config.json", "{\"legacy\": true}");
  spill(source / "generation_config.json", "{\"eos_token_id\": 2,  \"temperature\": 0.5}");
  const fs::path larger = resized(source, 64);
  EXPECT_EQ(slurp(larger / "tokenizer_config.json"), "{\"legacy\": true}");
  EXPECT_EQ(slurp(larger / "generation_config.json"), "{\"eos_token_id\": 2,  \"temperature\": 0.5}");
}

using ResizeBadInput = Resize;

TEST_F(ResizeBadInput, FewerRowsThanTheTokenizerHasIds) {
  const fs::path source = write(weights(), {{"pad_token_id", 50}});
  EXPECT_TRUE(mentions(refusal(source, 50), {"--vocab 50", "pad", "is 50"}));
  spill(source / "generation_config.json", R"({"eos_token_id": [2, 55]})");
  EXPECT_TRUE(mentions(refusal(source, 55), {"--vocab 55", "is 55", "generation_config.json"}));
  spill(source / "tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 58}}})");
  EXPECT_TRUE(mentions(refusal(source, 58), {"--vocab 58", "tokenizer", "has 59 ids"}));
  EXPECT_EQ(read_hf_config(resized(source, 59)).model.vocab_size, 59);
}

TEST_F(ResizeBadInput, DirectoriesThatCannotBeReadOrWritten) {
  const fs::path source = write(weights());
  EXPECT_TRUE(mentions(message_of([&] { resize({.model = source, .vocabulary = 64, .out = source}); }),
                       {source.c_str(), "is what is read"}));
  EXPECT_TRUE(mentions(refusal(write(weights(), {{"vocab_size", 60}}), 64),
                       {"model.embed_tokens.weight", "found F32 [61,32]", "expected [60,32]"}));
  EXPECT_TRUE(mentions(refusal(write(weights(), {{"quantization_config", {{"quant_method", "gptq"}}}}), 64),
                       {"quantization_config", "gptq"}));
  NamedWeights headless = weights();
  headless.erase("lm_head.weight");
  EXPECT_TRUE(mentions(refusal(write(headless), 64), {"lm_head.weight: missing"}));
  const fs::path native = write(weights());
  fs::rename(native / "config.json", native / mistral_params_file);
  EXPECT_TRUE(mentions(refusal(native, 64), {"Mistral's own format", "train.steps=0"}));
}

}  // namespace
}  // namespace smoe
