#include "trainer/convert/mixtral_config.h"

#include <optional>

#include "trainer/checkpoint/hf_rope.h"

namespace smoe {
namespace {

const char* torch_name(TensorType type) {
  switch (type) {
    case TensorType::bf16: return "bfloat16";
    case TensorType::f16: return "float16";
    case TensorType::f64: return "float64";
    default: return "float32";
  }
}

// Keys of LlamaConfig and MistralConfig that MixtralConfig has not, what is told by other keys here, and what may be there as null and
// would be read as something else of a Mixtral.
constexpr const char* not_kept[] = {"_name_or_path",  "attention_bias",        "auto_map",         "dtype",
                                    "mlp_bias",       "moe_intermediate_size", "n_routed_experts", "num_experts",
                                    "pretraining_tp", "quantization_config",   "rope_scaling"};

}  // namespace

Json mixtral_config(const Json& dense, const ModelConfig& shape, TensorType weights) {
  Json json = dense;
  for (const char* key : not_kept) json.erase(key);
  json.update({{"architectures", {"MixtralForCausalLM"}},
               {"head_dim", shape.head_size()},
               {"hidden_act", "silu"},
               {"hidden_size", shape.hidden_size},
               {"initializer_range", shape.initializer_range},
               {"intermediate_size", shape.intermediate_size},
               {"max_position_embeddings", shape.max_position_embeddings},
               {"model_type", "mixtral"},
               {"num_attention_heads", shape.num_attention_heads},
               {"num_experts_per_tok", shape.num_experts_per_tok},
               {"num_hidden_layers", shape.num_hidden_layers},
               {"num_key_value_heads", shape.num_key_value_heads},
               {"num_local_experts", shape.num_local_experts},
               {"output_router_logits", false},
               {"rms_norm_eps", shape.rms_norm_eps},
               {"rope_theta", shape.rope_theta},
               {"router_aux_loss_coef", 0.001},  // MixtralConfig's default; nothing here uses it
               {"router_jitter_noise", 0.0},
               {"sliding_window", shape.sliding_window ? Json(*shape.sliding_window) : Json(nullptr)},
               {"tie_word_embeddings", false},
               {"torch_dtype", torch_name(weights)},
               {"vocab_size", shape.vocab_size}});
  // LlamaConfig, MistralConfig and MixtralConfig agree on the defaults of bos and eos.
  const Json scaling = Json::parse(dump_json(hf_rope_scaling(shape)));
  json["rope_parameters"] = scaling;
  json["rope_parameters"]["rope_theta"] = shape.rope_theta;
  if (shape.rope_scaling.type != RopeType::standard) json["rope_scaling"] = scaling;
  return json;
}

}  // namespace smoe
