// LoRA adapters folded into the weights that they are beside: W + sum_i weight_i scale_i B_i A_i (arXiv 2106.09685), in PEFT's words
// merge_and_unload. The sum is taken in f64 and rounded once, to the type of the tensor. A number that it does not change keeps
// its bits, and so do all other tensors; names and layout, fused experts too, are the base's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "trainer/convert/stored_type.h"

namespace smoe {

struct WeightedAdapter {
  std::filesystem::path directory;  // as PEFT writes it (trainer/checkpoint/peft_adapter.h)
  double weight = 1;                // 0: as if it were not there
};

struct MergeOptions {
  std::filesystem::path model;            // a Hugging Face directory
  std::vector<WeightedAdapter> adapters;  // of any ranks and targets
  std::filesystem::path out;
  StoredType type = StoredType::keep;  // of all weights that are numbers; a selection bias stays f32
  std::uint64_t max_shard_bytes = kDefaultMaxShardBytes;
  std::function<void(std::uint64_t done, std::uint64_t all)> on_progress = {};  // bytes
};

struct Merged {
  std::int64_t tensors = 0, changed = 0;  // of the model; those that an adapter is added to
  std::uint64_t bytes = 0;                // of all tensors
  std::vector<std::string> warnings;      // what a user should know of model and adapters
};

// Writes the model's directory, whole or not at all: weights, config.json, the tokenizer's files and generation_config.json. Takes memory
// for A of one matrix and a few MiB of W. Throws std::runtime_error for directories that will not do (new_directory.h), adapters that
// do not fit the model, numbers of theirs that are not finite, and a sum that its type has no number for.
Merged merge(const MergeOptions& options);

}  // namespace smoe
