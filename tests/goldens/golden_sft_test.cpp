// Twenty steps of supervised fine-tuning beside transformers' (make_sft_goldens.py): the same examples, masks, order and
// rates, there a row each and padded, here packed; the whole trainer runs, from shards and a Hugging Face directory. And
// twenty steps of adapters beside the same weights, beside PEFT's (make_lora_goldens.py).
#include <fmt/format.h>

#include <cstring>

#include "data/shards/token_shard_writer.h"
#include "tests/support/deviation.h"
#include "tests/support/source_folder.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {
namespace {

using test::deviation;
using test::Worst;

constexpr double loss_tolerance = 2e-6;    // relative, in every step
constexpr double norm_tolerance = 5e-6;    // likewise
constexpr double weight_tolerance = 5e-5;  // of the tensor's largest entry, after twenty steps

template <class T>
std::vector<T> numbers_in(const SafetensorsReader& file, const std::string& name) {
  const std::span<const std::byte> bytes = file.raw(name);
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

class GoldenFineTuning : public TrainingTest {
 protected:
  GoldenFineTuning()
      : file_(test::source_folder() + "/tests/goldens/sft.safetensors"),
        config_(parse_json(file_.metadata().at("config"), file_.path())) {
    write_examples();
    write_model();
  }

  TrainerConfig fine_tuning(const std::string& output) const {
    const auto number = [&](const char* section, const char* key) { return config_.at(section).at(key).get<double>(); };
    TrainerConfig c = config(output);
    c.model = ModelConfig{};
    c.model.from = (root() / "model").string();
    c.router = RouterConfig{};
    c.router.aux_loss_scope = AuxLossScope::hf;
    c.router.aux_loss_coef = config_.at("aux_loss_coef").get<double>();
    c.data.train = {{.path = (root() / "examples").string()}};
    c.data.eval.clear();
    c.data.sequence_length = config_.at("sequence_length").get<std::int64_t>();
    c.data.packing = Packing::best_fit;
    c.data.shuffle = false;
    c.optimizer = {.learning_rate = number("optimizer", "learning_rate"),
                   .beta1 = number("optimizer", "beta1"),
                   .beta2 = number("optimizer", "beta2"),
                   .epsilon = number("optimizer", "epsilon"),
                   .weight_decay = number("optimizer", "weight_decay"),
                   .max_grad_norm = number("optimizer", "max_grad_norm")};
    c.schedule.type = ScheduleType::cosine;
    c.schedule.warmup_steps = config_.at("schedule").at("warmup_steps").get<std::int64_t>();
    c.schedule.min_lr_ratio = number("schedule", "min_lr_ratio");
    c.train.steps = config_.at("schedule").at("steps").get<std::int64_t>();
    c.train.global_batch_size = c.train.micro_batch_size = config_.at("global_batch_size").get<std::int64_t>();
    c.checkpoint.interval = c.train.steps;
    c.log.interval = 1;
    return c;
  }

  std::vector<double> by_step(const std::string& name) const { return numbers_in<double>(file_, "step." + name); }

  SafetensorsReader file_;
  Json config_;

 private:
  void write_examples() const {
    const auto ids = numbers_in<std::int32_t>(file_, "ids"), offsets = numbers_in<std::int32_t>(file_, "offsets");
    const auto marks = numbers_in<std::int32_t>(file_, "mask");
    const std::vector<std::uint8_t> mask(marks.begin(), marks.end());
    ShardSetInfo info;
    info.vocab_size = config_.at("model").at("vocab_size").get<std::int64_t>();
    info.source = "examples";
    ShardWriter writer((root() / "examples").string(), info);
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const auto first = static_cast<std::size_t>(offsets[i]), count = static_cast<std::size_t>(offsets[i + 1]) - first;
      writer.add_document(std::span(ids).subspan(first, count), std::span(mask).subspan(first, count));
    }
    writer.finish();
  }

  void write_model() const {
    std::filesystem::create_directory(root() / "model");
    Json keys = config_.at("model");
    keys["model_type"] = "mixtral";
    keys["max_position_embeddings"] = 64;
    write_json_file(root() / "model" / "config.json", keys);
    constexpr std::string_view prefix = "weight.";
    std::vector<TensorSpec> specs;
    for (const TensorInfo& tensor : file_.tensors())
      if (tensor.name.starts_with(prefix))
        specs.push_back({tensor.name.substr(prefix.size()), tensor.type, tensor.shape});
    auto writer = SafetensorsWriter::create(root() / "model" / "model.safetensors", specs);
    for (const TensorSpec& spec : specs) writer.write_raw(spec.name, 0, file_.raw(std::string(prefix) + spec.name));
    writer.finish();
  }
};

TEST_F(GoldenFineTuning, TwentyPackedStepsAreThoseOfTransformersUnpacked) {
  const TrainerConfig c = fine_tuning("run");
  ASSERT_EQ(train(c), 0);
  const MetricsLog log = metrics("run");
  const auto lm_loss = by_step("lm_loss"), aux_loss = by_step("aux_loss"), norm = by_step("grad_norm");
  const auto targets = by_step("targets"), tokens = by_step("tokens"), rate = by_step("learning_rate");
  ASSERT_EQ(log.steps.size(), lm_loss.size());
  Worst losses, norms, weights;
  double trained = 0;
  for (std::size_t s = 0; s < lm_loss.size(); ++s) {
    const StepMetrics& row = log.steps[s];
    const std::string step = " of step " + std::to_string(row.step);
    trained += tokens[s];
    EXPECT_EQ(static_cast<double>(row.targets), targets[s]) << step;
    EXPECT_EQ(static_cast<double>(row.tokens), trained) << step;
    EXPECT_DOUBLE_EQ(row.learning_rate, rate[s]) << step;
    losses.add(deviation(row.lm_loss, lm_loss[s]), "lm_loss" + step);
    losses.add(deviation(row.aux_loss, aux_loss[s]), "aux_loss" + step);
    norms.add(deviation(row.grad_norm, norm[s]), "grad_norm" + step);
  }
  const SafetensorsReader after(checkpoint("run", c.train.steps) / "model" / "model.safetensors");
  for (const TensorInfo& tensor : after.tensors())
    weights.add(deviation(numbers_in<float>(after, tensor.name), numbers_in<float>(file_, "after." + tensor.name)),
                tensor.name);
  EXPECT_LE(losses.value, loss_tolerance) << losses.name;
  EXPECT_LE(norms.value, norm_tolerance) << norms.name;
  EXPECT_LE(weights.value, weight_tolerance) << weights.name;
  fmt::print("  losses {:.1e} ({}), norms {:.1e} ({}), weights {:.1e} ({})\n", losses.value, losses.name, norms.value,
             norms.name, weights.value, weights.name);
}

// The adapters of every matrix, from a PEFT directory on.
TEST_F(GoldenFineTuning, TwentyStepsOfAdaptersAreThoseOfPeft) {
  const SafetensorsReader golden(test::source_folder() + "/tests/goldens/lora.safetensors");
  const Json keys = parse_json(golden.metadata().at("config"), golden.path());
  std::filesystem::create_directory(root() / "adapter");
  constexpr std::string_view before = "adapter.", after = "after.";
  std::vector<TensorSpec> specs;
  for (const TensorInfo& tensor : golden.tensors())
    if (tensor.name.starts_with(before))
      specs.push_back({tensor.name.substr(before.size()), tensor.type, tensor.shape});
  auto writer = SafetensorsWriter::create(root() / "adapter" / "adapter_model.safetensors", specs);
  for (const TensorSpec& spec : specs) writer.write_raw(spec.name, 0, golden.raw(std::string(before) + spec.name));
  writer.finish();
  write_json_file(root() / "adapter" / "adapter_config.json",
                  OrderedJson{{"peft_type", "LORA"},
                              {"task_type", "CAUSAL_LM"},
                              {"base_model_name_or_path", "model"},
                              {"r", keys.at("r")},
                              {"lora_alpha", keys.at("alpha")},
                              {"lora_dropout", 0.0},
                              {"use_rslora", false},
                              {"bias", "none"},
                              {"target_modules", keys.at("target_modules")}});

  TrainerConfig c = fine_tuning("run");
  c.router.aux_loss_coef = 0;
  c.optimizer.max_grad_norm = keys.at("max_grad_norm").get<double>();
  c.lora.emplace();
  c.lora->r = keys.at("r").get<std::int64_t>();
  c.lora->alpha = keys.at("alpha").get<double>();
  c.lora->target_modules = keys.at("target_modules").get<std::vector<std::string>>();
  c.lora->from = (root() / "adapter").string();
  ASSERT_EQ(train(c), 0);
  const MetricsLog log = metrics("run");
  const auto lm_loss = numbers_in<double>(golden, "step.lm_loss"), norm = numbers_in<double>(golden, "step.grad_norm"),
             rate = numbers_in<double>(golden, "step.learning_rate");
  ASSERT_EQ(log.steps.size(), lm_loss.size());
  Worst losses, norms, weights;
  for (std::size_t s = 0; s < lm_loss.size(); ++s) {
    const std::string step = " of step " + std::to_string(s + 1);
    EXPECT_DOUBLE_EQ(log.steps[s].learning_rate, rate[s]) << step;
    losses.add(deviation(log.steps[s].lm_loss, lm_loss[s]), "lm_loss" + step);
    norms.add(deviation(log.steps[s].grad_norm, norm[s]), "grad_norm" + step);
  }
  const SafetensorsReader found(checkpoint("run", c.train.steps) / "adapter" / "adapter_model.safetensors");
  EXPECT_EQ(found.tensors().size(), specs.size());
  for (const TensorInfo& tensor : found.tensors())
    weights.add(
        deviation(numbers_in<float>(found, tensor.name), numbers_in<float>(golden, std::string(after) + tensor.name)),
        tensor.name);
  EXPECT_LE(losses.value, loss_tolerance) << losses.name;
  EXPECT_LE(norms.value, norm_tolerance) << norms.name;
  EXPECT_LE(weights.value, weight_tolerance) << weights.name;
  fmt::print("  losses {:.1e} ({}), norms {:.1e} ({}), adapters {:.1e} ({})\n", losses.value, losses.name, norms.value,
             norms.name, weights.value, weights.name);
}

// The golden would notice: examples that are cut and joined as a stream are far outside the tolerance.
TEST_F(GoldenFineTuning, AStreamOfTheSameExamplesIsNoticed) {
  TrainerConfig c = fine_tuning("stream");
  c.data.packing = Packing::stream;  // examples cut and joined as they come
  c.train.steps = 1;
  ASSERT_EQ(train(c), 0);
  EXPECT_GT(deviation(metrics("stream").steps.at(0).lm_loss, by_step("lm_loss")[0]), 100 * loss_tolerance);
}

}  // namespace
}  // namespace smoe
