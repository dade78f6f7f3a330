// Adapters in PEFT's format between a ParameterSet and files: adapter_config.json (peft_config.h) and adapter_model.safetensors
// (peft_adapter.h). What is written has the parameters' own names behind kPeftPrefix, one A and one B a matrix.
#pragma once

#include <filesystem>

#include "kernels/backend.h"
#include "model/model_config.h"
#include "parallel/parameter.h"
#include "trainer/checkpoint/peft_adapter.h"

namespace smoe {

// Opens the directory, and throws what PeftAdapter and its config() refuse.
PeftConfig read_peft_config(const std::filesystem::path& directory, const ModelConfig& model);

// Fills the slice of every parameter that is an adapter's; the others are left alone. config: the directory's own. The parameters'
// rank may be larger than the file's: the rest is zeros. Throws std::runtime_error that lists what is missing or left over or has a
// larger rank. also: is shown each slice in f32.
void load_adapter(const std::filesystem::path& directory, const PeftConfig& config, const ModelConfig& model,
                  Backend& backend, ParameterSet& parameters, const ShowNumbers& also = {});

}  // namespace smoe
