// The directories that users mean: a run's, a checkpoint's, a model's or an adapter's stand for each other where one of them holds
// what is asked for. All throw std::runtime_error that says what is there and what was expected.
#pragma once

#include <filesystem>

namespace smoe {

inline constexpr char adapter_folder[] = "adapter";  // of a checkpoint, in place of model/ (adapters.h)

// The checkpoint that a checkpoint.resume argument means: step-N, a folder in it, or a run's latest.
std::filesystem::path find_checkpoint_directory(const std::filesystem::path& argument);

// The Hugging Face directory, or one in Mistral's own format, that a --model or model.from argument means: itself,
// step-N/model, or a run's latest.
std::filesystem::path find_model_directory(const std::filesystem::path& argument);

// The PEFT directory that an --adapter or lora.from argument means: itself, step-N/adapter, or a run's latest.
std::filesystem::path find_adapter_directory(const std::filesystem::path& argument);

}  // namespace smoe
