// Checkpoints of a run that trains adapters (model/low_rank.h): adapter/, a PEFT directory, in place of model/. The weights
// beside which they stand are those that the run began from, and are not written again.
#pragma once

#include <filesystem>
#include <string>

#include "model/lora_config.h"
#include "model/model_config.h"

namespace smoe {

struct AdapterRun {
  LoraConfig lora;
  std::filesystem::path base;  // the weights' directory; empty: they are random numbers, of the run's seed
  std::string fingerprint;     // of that directory (fingerprint_model_directory)
};

// Throws std::runtime_error where a checkpoint to resume from is of weights, or of adapters of another configuration, with one
// line a key.
void check_same_adapters(const std::filesystem::path& checkpoint, const AdapterRun& run, const ModelConfig& model);
// The same for adapters that are found in `where`.
void check_same_adapters(const LoraConfig& found, const LoraConfig& expected, const ModelConfig& model,
                         const std::string& where);
// The PEFT directory that lora.from means. Throws std::runtime_error where there is none, where it does not fit the model, and
// where its adapters are others than the configuration's.
std::filesystem::path find_adapters_to_go_on_from(const LoraConfig& lora, const ModelConfig& model);

// What a user should know of an adapter that was trained beside other weights than those of `model`; empty where it was not, or
// where nothing tells. A checkpoint's adapter has a fingerprint of them, PEFT's a path, which may lead nowhere on this machine.
std::string warning_of_another_base(const std::filesystem::path& adapter, const std::filesystem::path& model);

// Throws std::runtime_error where a checkpoint to resume from is of adapters, of a run that trains weights.
void refuse_adapters(const std::filesystem::path& checkpoint);

}  // namespace smoe
