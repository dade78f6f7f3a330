// Adapters that PEFT wrote: with each our model gives PEFT's logits, merged into the weights gives PEFT's weights, and merged
// or written again the same logits.
#include <fmt/format.h>

#include "tests/goldens/golden.h"
#include "tests/support/message_of.h"
#include "trainer/checkpoint/peft.h"
#include "trainer/checkpoint/weights.h"
#include "trainer/convert/merge.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

constexpr double adapted_logits_tolerance = 2e-5;  // of the largest logit
constexpr double merged_weight_tolerance = 1e-6;   // of the tensor's largest entry: PEFT adds in f32

const std::vector<std::string>& adapter_names() {
  static const std::vector<std::string> names{"linear",   "attention", "rslora",     "expression",
                                              "patterns", "fused",     "fused_down", "fused_swapped"};
  return names;
}

using Logits = std::vector<std::pair<std::string, std::vector<float>>>;

class GoldenPeft : public testing::TestWithParam<std::string> {
 protected:
  GoldenPeft() : expected((adapter() / "expected.safetensors").string()) {}

  std::filesystem::path adapter() const {
    return std::filesystem::path(test::source_folder()) / "tests/goldens/peft" / GetParam();
  }

  // The base as a directory.
  std::filesystem::path base() {
    const std::filesystem::path directory = scratch / "base";
    if (std::filesystem::exists(directory)) return directory;
    std::filesystem::create_directory(directory);
    HfConfig config;
    config.model = golden.model;
    write_hf_config(directory, config);
    const ParameterSet parameters = declare_parameters(golden.model, Mesh::single());
    auto writer = TensorDirectoryWriter::create(directory, tensor_specs(parameters));
    for (const Parameter& p : parameters) writer.write_f32(p.name, 0, golden.values("weight." + p.name));
    writer.finish();
    return directory;
  }

  Logits forward(Mixtral& model, Context context) const {
    const StepBatch first = golden.batch(1);
    const TokenBatch batch =
        make_token_batch(context.backend, context.activations, first.sequences, first.sequence_length, first.ids);
    Mixtral::Saved saved;
    model.forward(context, batch, Keep::all, saved);
    const Tensor logits = context.activations.take({batch.tokens(), golden.model.vocab_size});
    model.logits(context, saved.hidden, logits);
    Logits all{{"logits", numbers_of(context.backend, logits)}};
    for (std::size_t l = 0; l < saved.layers.size(); ++l)
      all.emplace_back(fmt::format("router_logits.{}", l), numbers_of(context.backend, saved.layers[l].router.logits));
    return all;
  }

  Logits with_adapter(const std::filesystem::path& directory, double alpha_factor = 1) {
    PeftConfig config = read_peft_config(directory, golden.model);
    config.lora.alpha *= alpha_factor;
    const auto backend = make_backend(DeviceChoice::automatic, 2);
    Arena persistent(*backend), activations(*backend), scratch_memory(*backend);
    Mixtral model(golden.model, mesh, {}, {}, DType::f32, &config.lora);
    model.allocate(*backend, persistent, golden.sequence_length, false);
    std::vector<float> staging;
    for (const Parameter& p : model.parameters()) {
      if (p.adapter) continue;
      const HostView value(*backend, p.value, staging);
      const std::vector<float> weight = golden.values("weight." + p.name);
      std::copy(weight.begin(), weight.end(), value.numbers().begin());
      value.store();
    }
    config.lora.alpha /= alpha_factor;
    load_adapter(directory, config, golden.model, *backend, model.parameters());
    written_specs = tensor_specs(declare_parameters(golden.model, mesh, {}, DType::f32, &config.lora), kPeftPrefix,
                                 Members::trained);
    numbers.clear();
    for (const Parameter& p : model.parameters())
      if (p.adapter) numbers.emplace_back(kPeftPrefix + p.name, numbers_of(*backend, p.value));
    return forward(model, {*backend, mesh, activations, scratch_memory});
  }

  Worst deviations(const Logits& found) const {
    Worst worst;
    for (const auto& [name, values] : found) worst.add(deviation(values, expected_values(name)), name);
    return worst;
  }
  std::vector<float> expected_values(const std::string& name) const {
    std::vector<float> out(static_cast<std::size_t>(expected.info(name).elements()));
    expected.read_f32(name, out.data(), 0, static_cast<std::int64_t>(out.size()));
    return out;
  }

  GoldenFile golden{"mixtral_gqa"};
  SafetensorsReader expected;
  test::ScratchDir scratch;
  Mesh mesh = Mesh::single();
  // Of the last with_adapter(): what would be written.
  std::vector<TensorSpec> written_specs;
  std::vector<std::pair<std::string, std::vector<float>>> numbers;
};

TEST_P(GoldenPeft, LogitsAreThoseOfPeft) {
  const Worst worst = deviations(with_adapter(adapter()));
  EXPECT_LE(worst.value, adapted_logits_tolerance) << worst.name;
  fmt::print("  {} logits: {:.2e} ({}), allowed {:.0e}\n", GetParam(), worst.value, worst.name,
             adapted_logits_tolerance);
}

TEST_P(GoldenPeft, OnePercentOfTheScaleIsNoticed) {
  EXPECT_GT(deviations(with_adapter(adapter(), 1.01)).value, 10 * adapted_logits_tolerance);
}

TEST_P(GoldenPeft, WrittenAgainItIsTheSame) {
  const Logits before = with_adapter(adapter());
  const PeftConfig config = read_peft_config(adapter(), golden.model);
  write_peft_config(scratch.path(), config.lora, "base", golden.model);
  auto writer = SafetensorsWriter::create(scratch / kAdapterFile, written_specs);
  for (const auto& [name, values] : numbers) writer.write_f32(name, 0, values);
  writer.finish();
  const PeftConfig again = read_peft_config(scratch.path(), golden.model);
  EXPECT_EQ(again.lora.target_modules, config.lora.target_modules);
  EXPECT_EQ(again.lora.layers, config.lora.layers);
  EXPECT_EQ(again.lora.r, config.lora.r);
  EXPECT_EQ(again.base, "base");
  EXPECT_EQ(with_adapter(scratch.path()), before);
}

TEST_P(GoldenPeft, MergedItIsWhatPeftMerges) {
  const std::filesystem::path out = scratch / "merged";
  const Merged merged = merge({.model = base(), .adapters = {{adapter()}}, .out = out});
  EXPECT_GT(merged.changed, 0);
  const TensorDirectory files(out);
  Worst weights;
  int compared = 0;
  for (const TensorInfo& info : expected.tensors()) {
    constexpr std::string_view prefix = "merged.";
    if (!info.name.starts_with(prefix)) continue;
    const std::string name = info.name.substr(prefix.size());
    std::vector<float> found(static_cast<std::size_t>(info.elements()));
    files.read_f32(name, found.data(), 0, info.elements());
    weights.add(deviation(found, expected_values(info.name)), name);
    ++compared;
  }
  EXPECT_EQ(compared, 11);  // of one layer: attention, router, two experts
  EXPECT_LE(weights.value, merged_weight_tolerance) << weights.name;

  InferenceModel model(out, mesh, golden.sequence_length, make_backend(DeviceChoice::automatic, 2));
  const Worst worst = deviations(forward(model.model(), model.fresh_context()));
  EXPECT_LE(worst.value, adapted_logits_tolerance) << worst.name;
  fmt::print("  {} merged: weights {:.2e} ({}), allowed {:.0e}; logits {:.2e}\n", GetParam(), weights.value,
             weights.name, merged_weight_tolerance, worst.value);
}

const auto of_name = [](const testing::TestParamInfo<std::string>& info) { return info.param; };
INSTANTIATE_TEST_SUITE_P(Adapters, GoldenPeft, testing::ValuesIn(adapter_names()), of_name);

}  // namespace
}  // namespace smoe
