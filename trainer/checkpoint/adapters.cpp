#include "trainer/checkpoint/adapters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <stdexcept>
#include <system_error>

#include "data/files/json.h"
#include "data/files/printable.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/directories.h"
#include "trainer/checkpoint/peft.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// The fingerprint of the weights beside which a checkpoint's adapters were trained.
std::string fingerprint_of_base(const fs::path& adapter) {
  const fs::path directory = fs::weakly_canonical(adapter), state = directory.parent_path() / "state.json";
  if (directory.filename() != adapter_folder || !fs::exists(state)) return {};
  const Json document = read_json_file(state);
  return JsonReader(document, state.string()).optional_string("base").value_or("");
}

// That of the directory that PEFT was given; empty where it is none here, or where something else has its name.
std::string fingerprint_of_named_base(const std::string& name) {
  std::error_code error;
  if (name.empty() || !fs::is_directory(name, error)) return {};
  try {
    return fingerprint_model_directory(name);
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace

void check_same_adapters(const fs::path& checkpoint, const AdapterRun& run, const ModelConfig& model) {
  if (!fs::exists(checkpoint / adapter_folder))
    throw std::runtime_error(fmt::format(
        "{}: holds a model's weights, and this run trains adapters (lora): to train adapters beside these weights, begin "
        "another run with model.from",
        checkpoint.string()));
  check_same_adapters(read_peft_config(checkpoint / adapter_folder, model).lora, run.lora, model, checkpoint.string());
}

void check_same_adapters(const LoraConfig& found, const LoraConfig& expected, const ModelConfig& model,
                         const std::string& where) {
  std::string problems;
  const auto compare = [&](const char* key, const auto& there, const auto& here) {
    if (there != here) problems += fmt::format("\n  lora.{}: {} there, {} here", key, there, here);
  };
  compare("r", found.r, expected.r);
  // What it comes to: an adapter's file may say the same in another way.
  if (std::abs(found.scale() - expected.scale()) > 1e-6 * expected.scale())
    compare("alpha", fmt::format("the product is weighed by {:.6g}", found.scale()),
            fmt::format("by {:.6g}", expected.scale()));
  for (std::int64_t layer = 0; layer < model.num_hidden_layers && problems.empty(); ++layer)
    for (const std::string_view target : lora_targets)
      if (found.targets(layer, target) != expected.targets(layer, target)) {
        problems += fmt::format("\n  lora.target_modules, lora.layers: {} of layer {} has an adapter {} alone", target,
                                layer, found.targets(layer, target) ? "there" : "here");
        break;
      }
  if (!problems.empty())
    throw std::runtime_error(fmt::format("{}: its adapters are others than this run trains:{}", where, problems));
}

fs::path find_adapters_to_go_on_from(const LoraConfig& lora, const ModelConfig& model) {
  fs::path directory = find_adapter_directory(*lora.from);
  check_same_adapters(read_peft_config(directory, model).lora, lora, model, directory.string());
  return directory;
}

std::string warning_of_another_base(const fs::path& adapter, const fs::path& model) {
  const std::string base = read_adapter_settings(adapter).base;
  std::string expected = fingerprint_of_base(adapter);
  if (expected.empty()) expected = fingerprint_of_named_base(base);
  if (expected.empty() || expected == fingerprint_model_directory(model)) return {};
  return fmt::format(
      "{}: was trained beside other files than those of {}{}: unless they hold the same weights, the two do not go together",
      adapter.string(), model.string(), base.empty() ? "" : fmt::format(", those of {}", quote_for_message(base)));
}

void refuse_adapters(const fs::path& checkpoint) {
  if (fs::exists(checkpoint / adapter_folder))
    throw std::runtime_error(fmt::format(
        "{}: holds adapters, and this run trains a model's weights: resume with the lora section that it was made with",
        checkpoint.string()));
}

}  // namespace smoe
