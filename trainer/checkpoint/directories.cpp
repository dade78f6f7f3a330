#include "trainer/checkpoint/directories.h"

#include <fmt/format.h>

#include <stdexcept>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/peft.h"

namespace smoe {
namespace fs = std::filesystem;

fs::path find_checkpoint_directory(const fs::path& argument) {
  const fs::path path = argument.has_filename() ? argument : argument.parent_path();  // without a trailing slash
  for (const fs::path& directory : {path, path.parent_path()})
    if (fs::exists(directory / "state.json")) return directory;
  for (const fs::path& checkpoints : {path / "checkpoints", path})
    if (const auto latest = latest_checkpoint(checkpoints); latest && fs::exists(*latest / "state.json"))
      return *latest;
  throw std::runtime_error(fmt::format(
      "checkpoint.resume: {} is not a checkpoint (no state.json); to start from its weights alone, use model.from",
      argument.string()));
}

fs::path find_model_directory(const fs::path& argument) {
  if (fs::is_regular_file(argument))
    throw std::runtime_error(
        fmt::format("{}: is a file, expected the directory of a model: its configuration stands beside "
                    "its weights. A pickle (.bin, .pt, .pth) is never read: convert it to "
                    "safetensors, as save_pretrained() of transformers writes",
                    argument.string()));
  const fs::path path = argument.has_filename() ? argument : argument.parent_path();  // without a trailing slash
  if (has_hf_config(path)) return path;
  if (fs::exists(path / "model" / "config.json")) return path / "model";
  const auto refuse_adapter = [&](const fs::path& directory) {
    if (fs::exists(directory / kAdapterConfigFile))
      throw std::runtime_error(fmt::format(
          "{}: holds an adapter and no weights: expected the model that it stands beside, and the adapter as --adapter {}",
          directory.string(), directory.string()));
  };
  refuse_adapter(path);
  refuse_adapter(path / adapter_folder);
  for (const fs::path& checkpoints : {path / "checkpoints", path})
    if (const auto latest = latest_checkpoint(checkpoints)) {
      refuse_adapter(*latest / adapter_folder);
      return *latest / "model";
    }
  throw std::runtime_error(fmt::format(
      "{}: no model found: expected a Hugging Face directory (config.json and safetensors), one in Mistral's own format "
      "(params.json and consolidated.safetensors), a checkpoint (step-N), or a run directory with checkpoints",
      argument.string()));
}

fs::path find_adapter_directory(const fs::path& argument) {
  const fs::path path = argument.has_filename() ? argument : argument.parent_path();  // without a trailing slash
  for (const fs::path& directory : {path, path / adapter_folder})
    if (fs::exists(directory / kAdapterConfigFile)) return directory;
  for (const fs::path& checkpoints : {path / "checkpoints", path})
    if (const auto latest = latest_checkpoint(checkpoints); latest && fs::exists(*latest / adapter_folder))
      return *latest / adapter_folder;
  throw std::runtime_error(fmt::format(
      "{}: no adapter found: expected a PEFT directory (adapter_config.json and {}), a checkpoint of a run with lora "
      "(step-N), or such a run's directory",
      argument.string(), kAdapterFile));
}

}  // namespace smoe
