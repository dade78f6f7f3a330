#include "trainer/checkpoint/adapters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <stdexcept>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/peft.h"

namespace smoe {
namespace fs = std::filesystem;

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

void refuse_adapters(const fs::path& checkpoint) {
  if (fs::exists(checkpoint / adapter_folder))
    throw std::runtime_error(fmt::format(
        "{}: holds adapters, and this run trains a model's weights: resume with the lora section that it was made with",
        checkpoint.string()));
}

}  // namespace smoe
