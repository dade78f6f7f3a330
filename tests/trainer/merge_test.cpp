// smoe merge: what is added up, what keeps its bits, and what is refused with nothing left behind.
#include "trainer/convert/merge.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/adapter_files.h"
#include "trainer/convert/stored_numbers.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::AdapterFixture;
using test::expect_refused;
using test::ScratchDir;
using test::StoredTensors;
using test::tiny_model;

const std::string changed_matrix = "model.layers.1.block_sparse_moe.experts.2.w2.weight";

class MergeTest : public testing::Test {
 protected:
  LoraConfig lora(std::int64_t r, std::vector<std::string> modules) const {
    LoraConfig config;
    config.r = r;
    config.alpha = 3;
    config.target_modules = std::move(modules);
    return config;
  }
  fs::path adapter(const std::string& name, const LoraConfig& config, std::uint64_t seed = 1) const {
    return AdapterFixture::of(model, config, seed).write(scratch / name);
  }
  fs::path base(TensorType type = TensorType::f32) const {
    return test::write_model(scratch / "base", model, test::drawn_weights(model, type));
  }
  Merged merged(std::vector<WeightedAdapter> adapters, StoredType type = StoredType::keep) const {
    fs::remove_all(scratch / "out");
    return merge({.model = scratch / "base", .adapters = std::move(adapters), .out = scratch / "out", .type = type});
  }
  static std::string bytes(const fs::path& directory, const std::string& name) {
    const TensorDirectory files(directory);
    const auto raw = files.raw(name);
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }
  static std::vector<float> numbers(const fs::path& directory, const std::string& name) {
    const TensorDirectory files(directory);
    std::vector<float> out(static_cast<std::size_t>(files.info(name).elements()));
    files.read_f32(name, out.data(), 0, static_cast<std::int64_t>(out.size()));
    return out;
  }
  std::vector<std::string> changed_tensors() const {
    std::vector<std::string> names;
    const TensorDirectory files(scratch / "base");
    for (const std::string& name : files.names())
      if (bytes(scratch / "base", name) != bytes(scratch / "out", name)) names.push_back(name);
    return names;
  }

  ModelConfig model = tiny_model();
  ScratchDir scratch;
};

TEST_F(MergeTest, WhatIsNotAddedToKeepsItsBits) {
  base();
  const Merged result = merged({{adapter("a", lora(2, {"w2", "k_proj"}))}});
  EXPECT_EQ(result.changed, 2 * (4 + 1));
  const auto changed = changed_tensors();
  EXPECT_EQ(changed.size(), 10u);
  for (const std::string& name : changed)
    EXPECT_TRUE(name.ends_with(".w2.weight") || name.ends_with(".k_proj.weight")) << name;
  EXPECT_EQ(test::slurp(scratch / "base" / "config.json"), test::slurp(scratch / "out" / "config.json"));
}

// -0 and -0 + 0 have other bits, and a number that is none has a payload.
TEST_F(MergeTest, WeightOfZeroAndBOfZeroChangeNoBit) {
  for (const TensorType type : {TensorType::f32, TensorType::bf16, TensorType::f16, TensorType::f64}) {
    fs::remove_all(scratch / "base");
    StoredTensors weights = test::drawn_weights(model, type);
    weights[changed_matrix].numbers[0] = -0.0f;
    weights[changed_matrix].numbers[1] = std::bit_cast<float>(0x7fc12000u);
    test::write_model(scratch / "base", model, weights);
    AdapterFixture zeros = AdapterFixture::of(model, lora(2, {"w1", "w2", "gate"}));
    for (auto& [name, tensor] : zeros.tensors)
      if (name.find("lora_B") != std::string::npos) tensor.numbers.assign(tensor.numbers.size(), 0.0f);
    zeros.write(scratch / "zeros");
    EXPECT_GT(merged({{scratch / "zeros"}}).changed, 0);
    EXPECT_TRUE(changed_tensors().empty()) << name_of(type);
    EXPECT_EQ(merged({{adapter("a", lora(2, {"w1", "w2"})), 0.0}}).changed, 0);
    EXPECT_TRUE(changed_tensors().empty()) << name_of(type);
    EXPECT_EQ(test::slurp(scratch / "base/model.safetensors"), test::slurp(scratch / "out/model.safetensors"));
    merged({{adapter("a", lora(2, {"w1", "w2"}))}});
    EXPECT_FALSE(changed_tensors().empty()) << name_of(type);
  }
}

TEST_F(MergeTest, AdaptersOfOtherRanksAndTargetsAreAddedUpAndRoundedOnce) {
  for (const TensorType type : {TensorType::f32, TensorType::bf16, TensorType::f16}) {
    fs::remove_all(scratch / "base");
    const StoredTensors weights = test::drawn_weights(model, type);
    test::write_model(scratch / "base", model, weights);
    LoraConfig second = lora(5, {"w2", "q_proj"});
    second.rslora = true;
    const AdapterFixture a = AdapterFixture::of(model, lora(2, {"w2", "v_proj"})),
                         b = AdapterFixture::of(model, second, 2);
    merged({{a.write(scratch / "a"), 0.5}, {b.write(scratch / "b"), -0.25}});
    EXPECT_EQ(changed_tensors().size(), 2u * (4 + 2));

    std::vector<double> expected;
    for (const float w : numbers(scratch / "base", changed_matrix)) expected.push_back(static_cast<double>(w));
    const auto add = [&](const AdapterFixture& adapter, std::int64_t r, double factor) {
      const std::string path = kPeftPrefix + changed_matrix.substr(0, changed_matrix.size() - 7);
      const auto &in = adapter.tensors.at(path + ".lora_A.weight").numbers,
                 &out = adapter.tensors.at(path + ".lora_B.weight").numbers;
      for (std::size_t row = 0; row < 32; ++row)
        for (std::size_t column = 0; column < 40; ++column)
          for (std::size_t j = 0; j < static_cast<std::size_t>(r); ++j)
            expected[row * 40 + column] += factor * static_cast<double>(out[row * static_cast<std::size_t>(r) + j]) *
                                           static_cast<double>(in[j * 40 + column]);
    };
    add(a, 2, 0.5 * 3 / 2);
    add(b, 5, -0.25 * 3 / std::sqrt(5.0));
    const auto found = numbers(scratch / "out", changed_matrix);
    // Half a step of the type there, and a little for the order of the sum.
    const int bits = type == TensorType::f32 ? 24 : type == TensorType::bf16 ? 8 : 11;
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], std::ldexp(1.0001, std::ilogb(expected[i]) - bits) + 1e-12)
          << name_of(type) << " " << i;
  }
}

TEST_F(MergeTest, ADoubleIsRoundedOnce) {
  // Above the middle between two numbers of bf16 by less than an f32 can say.
  const double above = 1 + 0x1p-8 + 0x1p-40, below = 1 + 3 * 0x1p-8 - 0x1p-40;
  EXPECT_EQ(f32_from_bf16(bf16_from_f32(static_cast<float>(above))), 1) << "rounded twice";
  EXPECT_EQ(f32_from_bf16(StoredBf16::rounded(above)), 1 + 0x1p-7f);
  EXPECT_EQ(f32_from_bf16(StoredBf16::rounded(-above)), -1 - 0x1p-7f);
  EXPECT_EQ(f32_from_bf16(StoredBf16::rounded(below)), 1 + 0x1p-7f);
  EXPECT_EQ(f32_from_f16(StoredF16::rounded(1 + 0x1p-11 + 0x1p-40)), 1 + 0x1p-10f);
  EXPECT_EQ(StoredBf16::rounded(0.0), 0);
  EXPECT_EQ(StoredBf16::rounded(1e300), 0x7f80);
}

TEST_F(MergeTest, FusedExpertsOfABaseGetTheSameNumbers) {
  base();
  const fs::path a = adapter("a", lora(3, {"w1", "w2"})), b = adapter("b", lora(2, {"w3", "gate"}), 2);
  merged({{a}, {b}});
  std::map<std::string, std::vector<float>> apart;
  const TensorDirectory merged_apart(scratch / "out");
  for (const std::string& name : merged_apart.names()) apart[name] = numbers(scratch / "out", name);

  StoredTensors fused;
  for (auto& [name, tensor] : test::drawn_weights(model)) {
    const auto at = name.find(".block_sparse_moe.experts.");
    if (at == std::string::npos) {
      fused[name] = tensor;
      continue;
    }
    const bool down = name.ends_with("w2.weight");
    auto& whole = fused[name.substr(0, at) + (down ? ".mlp.experts.down_proj" : ".mlp.experts.gate_up_proj")];
    whole.shape = down ? std::vector<std::int64_t>{4, 32, 40} : std::vector<std::int64_t>{4, 80, 32};
    whole.numbers.resize(static_cast<std::size_t>(whole.shape[0] * whole.shape[1] * whole.shape[2]));
    const std::int64_t expert = std::stoll(name.substr(at + 26)), size = 40 * 32;
    const std::int64_t first = down ? expert * size : (2 * expert + (name.ends_with("w3.weight") ? 1 : 0)) * size;
    std::copy(tensor.numbers.begin(), tensor.numbers.end(), whole.numbers.begin() + first);
  }
  fs::remove_all(scratch / "base");
  test::write_model(scratch / "base", model, fused, 20000);
  ASSERT_GT(TensorDirectory(scratch / "base").files().size(), 3u);
  EXPECT_EQ(merged({{a}, {b}}).changed, 2 * (1 + 1 + 1));
  const auto gate_up = numbers(scratch / "out", "model.layers.1.mlp.experts.gate_up_proj"),
             down = numbers(scratch / "out", "model.layers.1.mlp.experts.down_proj");
  for (std::size_t e = 0; e < 4; ++e) {
    const std::string path = fmt::format("model.layers.1.block_sparse_moe.experts.{}.", e);
    const auto part = [](const std::vector<float>& all, std::size_t i) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(i * 1280);
      return std::vector<float>(first, first + 1280);
    };
    EXPECT_EQ(part(gate_up, 2 * e), apart.at(path + "w1.weight"));
    EXPECT_EQ(part(gate_up, 2 * e + 1), apart.at(path + "w3.weight"));
    EXPECT_EQ(part(down, e), apart.at(path + "w2.weight"));
  }
}

TEST_F(MergeTest, ShardsAreNoLargerThanTheyMay) {
  base();
  const fs::path a = adapter("a", lora(2, {"w2"}));
  merged({{a}});
  const std::string whole = bytes(scratch / "out", changed_matrix);
  merge({.model = scratch / "base", .adapters = {{a}}, .out = scratch / "sharded", .max_shard_bytes = 30000});
  EXPECT_GT(TensorDirectory(scratch / "sharded").files().size(), 3u);
  EXPECT_EQ(bytes(scratch / "sharded", changed_matrix), whole);
}

TEST_F(MergeTest, TheTypeMayBeAnother) {
  base(TensorType::bf16);
  const fs::path a = adapter("a", lora(2, {"w2"}));
  merged({{a}}, StoredType::f32);
  const TensorDirectory files(scratch / "out");
  for (const std::string& name : files.names()) {
    EXPECT_EQ(files.info(name).type, TensorType::f32) << name;
    if (name.find(".w2.") != std::string::npos) continue;
    EXPECT_EQ(numbers(scratch / "out", name), numbers(scratch / "base", name)) << name;
  }
  EXPECT_EQ(read_json_file(scratch / "out/config.json").at("torch_dtype"), "float32");
  fs::remove_all(scratch / "base");
  base();
  merged({{a}}, StoredType::bf16);
  const TensorDirectory rounded(scratch / "out");
  EXPECT_EQ(rounded.info("model.norm.weight").type, TensorType::bf16);
  EXPECT_EQ(read_json_file(scratch / "out/config.json").at("torch_dtype"), "bfloat16");
  const auto before = numbers(scratch / "base", "lm_head.weight"), after = numbers(scratch / "out", "lm_head.weight");
  for (std::size_t i = 0; i < before.size(); ++i) ASSERT_EQ(after[i], f32_from_bf16(bf16_from_f32(before[i])));
}

TEST_F(MergeTest, WhatWillNotDoIsRefusedAndLeavesNothing) {
  base();
  const fs::path good = adapter("good", lora(2, {"w2"}));
  const auto refused = [&](std::vector<WeightedAdapter> adapters, std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { merged(adapters); }, pieces);
    EXPECT_FALSE(fs::exists(scratch / "out"));
    EXPECT_FALSE(fs::exists(scratch / ".out.unfinished"));
  };
  ModelConfig other = model;
  other.intermediate_size = 48;
  AdapterFixture::of(other, lora(2, {"w2"})).write(scratch / "other");
  refused({{good}, {scratch / "other"}}, {"found [2,48], expected [2,40]"});
  AdapterFixture broken = AdapterFixture::of(model, lora(2, {"w2"}));
  broken.tensors.at(kPeftPrefix + std::string("model.layers.1.block_sparse_moe.experts.2.w2.lora_B.weight"))
      .numbers[3] = std::numeric_limits<float>::quiet_NaN();
  broken.write(scratch / "broken");
  refused({{scratch / "broken"}}, {"experts.2.w2.lora_B.weight: found nan, expected finite numbers"});
  refused({{good, std::numeric_limits<double>::infinity()}}, {"found weight inf"});
  refused({{scratch / "none"}}, {"holds no adapter_config.json"});

  fs::remove_all(scratch / "base");
  base(TensorType::f16);
  refused({{good, 1e6}}, {"w2.weight: element", "--dtype fp32"});
  expect_refused([&] { merge({.model = scratch / "base", .adapters = {{good}}, .out = scratch / "base"}); },
                 {"is what is read"});
  expect_refused([&] { merge({.model = scratch / "base", .adapters = {{good}}, .out = good}); }, {"is what is read"});
  scratch.write("full/file", "text");
  expect_refused([&] { merge({.model = scratch / "base", .adapters = {{good}}, .out = scratch / "full"}); },
                 {"holds file, expected a directory that is new or empty"});

  fs::rename(scratch / "base/config.json", scratch / "base/params.json");
  refused({{good}}, {"Mistral's own format", "train.steps=0"});

  StoredTensors weights = test::drawn_weights(model);
  weights.erase(changed_matrix);
  fs::remove_all(scratch / "base");
  test::write_model(scratch / "base", model, weights);
  refused({{good}}, {"experts.2.w2.weight: found 0 tensors, expected one"});
}

}  // namespace
}  // namespace smoe
