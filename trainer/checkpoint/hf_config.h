// config.json of a Hugging Face Mixtral directory, read and written: both generations of transformers (4.x and 5.x). Where
// a directory has none, the params.json of Mistral's own format is read in its place (mistral_params.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "kernels/tensor.h"
#include "model/model_config.h"

namespace smoe {

struct HfConfig {
  ModelConfig model;                           // `from` is empty
  bool tied_head = false;                      // the file's embedding and head are one tensor; here they never are
  std::optional<double> router_aux_loss_coef;  // in transformers' unit, as found; nothing here uses it
  std::int32_t bos = 1;                        // -1: none
  std::vector<std::int32_t> eos = {2};         // every id that ends a text; empty: none
  std::int32_t pad = -1;                       // pad_token_id, kept for what is exported; -1: none
  DType weights = DType::f32;                  // type of the files that are written beside it: f32 or bf16
  std::string forced_routing;  // in which some of its training was a benchmark (model/forced_routing.h); else empty
  // Keys of the file that nothing here decides, as found; write_hf_config() writes them back.
  Json kept = Json::object();
  std::vector<std::string> warnings;  // what a user should know, e.g. a sliding window in a derived checkpoint
};

// The file of a directory that says what model it holds: config.json, or params.json where only that is there.
std::filesystem::path hf_config_file(const std::filesystem::path& directory);
// Whether a directory has such a file.
bool has_hf_config(const std::filesystem::path& directory);

// Keys that are absent have MixtralConfig's defaults, which a warning tells. Throws std::runtime_error that names the
// file and key where it is malformed, not a Mixtral, or asks for something that would be computed differently here
// (biases, quantized weights, another activation, rope scalings beyond those of model/rope_scaling.h).
HfConfig read_hf_config(const std::filesystem::path& directory);
// The same for model.from: what `wanted` says beside it takes the place of what is found.
HfConfig read_hf_config(const std::filesystem::path& directory, const ModelConfig& wanted);

// The ids at which generation stops: those of config.json, and those that generation_config.json adds where the directory
// has one. Throws std::runtime_error where that file is malformed.
std::vector<std::int32_t> read_stop_ids(const std::filesystem::path& directory, const HfConfig& config);

// config.json and generation_config.json. router_aux_loss_coef goes into transformers' unit:
// coefficient * layers / K, under which layers that balance alike contribute the same loss.
// Of config.kept everything is written but what speaks of other weights than those beside it: keys of shape, type, rotary
// embedding and special ids are ours alone; where a model was found (_name_or_path), code that came with it (auto_map), and
// quantisation, null as it must have been, are left away. transformers_version stays: whose generation the tokenizer's files
// beside it are of, transformers decides by it. attention_dropout, output_router_logits, router_jitter_noise and use_cache
// are settings of transformers' own runs, and stay as they were.
void write_hf_config(const std::filesystem::path& directory, const HfConfig& config);

}  // namespace smoe
