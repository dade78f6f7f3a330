// Rotary embedding in a config.json: rope_parameters as transformers 5 writes them, rope_theta and rope_scaling as 4 does.
#pragma once

#include <string>
#include <vector>

#include "data/files/json.h"
#include "model/model_config.h"

namespace smoe {

// Fills rope_theta and rope_scaling of a model whose max_position_embeddings and head size are known, reading every
// spelling as transformers does: a rope_scaling that is there goes before rope_parameters, rope_type before type, and the
// theta inside before the one beside. What transformers would leave unread becomes a warning.
// Throws std::runtime_error that names file and key for types that are not computed here (longrope, proportional, unknown
// ones), for heads that are rotated in part, and for values with which transformers could not compute either.
void read_hf_rope(const JsonReader& config, ModelConfig& model, std::vector<std::string>& warnings);

// {"rope_type": ..., "factor": ...}: what read_hf_rope takes for model.rope_scaling, without theta.
OrderedJson hf_rope_scaling(const ModelConfig& model);

}  // namespace smoe
