// config.json of a Mixtral that is made of a dense model.
#pragma once

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "model/model_config.h"

namespace smoe {

// The dense model's with the shape of the Mixtral, spelled for transformers 4 and 5. What says how the dense architecture differs, or
// where it came from, is left out; every other key is kept as it is, transformers_version among them, by which transformers knows
// the generation of the tokenizer's files.
Json mixtral_config(const Json& dense, const ModelConfig& shape, TensorType weights);

}  // namespace smoe
