// Adapters in PEFT's format.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/backend.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {
struct PeftConfig {
  LoraConfig lora;
  std::string base;
};
PeftConfig read_peft_config(const std::filesystem::path& directory, const ModelConfig& model);
void write_peft_config(const std::filesystem::path& directory, const LoraConfig& lora, const std::string& base,
                       const ModelConfig& model);
void load_adapter(const std::filesystem::path& directory, const PeftConfig& config, const ModelConfig& model,
                  Backend& backend, ParameterSet& parameters, const ShowNumbers& also = {});
}  // namespace smoe
