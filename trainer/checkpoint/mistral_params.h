// params.json: what Mistral's own format has in place of a config.json, beside consolidated*.safetensors.
#pragma once

#include <filesystem>

#include "trainer/checkpoint/hf_config.h"

namespace smoe {

inline constexpr char mistral_params_file[] = "params.json";

// dim, n_layers, n_heads, n_kv_heads, head_dim, hidden_dim, norm_eps, vocab_size and moe are wanted. Without a rope_theta it
// is mistral-inference's 1e6, or 1e4 with a sliding_window; the longest sequence, which the format does not tell, is that of
// 8x7B unless max_position_embeddings or max_seq_len is there. Warnings tell both. Throws std::runtime_error that names file
// and key where it is malformed, not a Mixtral, or asks for something that would be computed differently here.
HfConfig read_mistral_params(const std::filesystem::path& file);

}  // namespace smoe
