#include "trainer/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "data/files.h"
#include "data/json.h"

namespace smoe {
namespace {
constexpr std::int64_t max_int = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(const JsonReader& json, const std::string& key, const std::string& found, const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

// A key that must be absent, null or the one value that is computed here.
void require_default(const JsonReader& json, const char* key, const Json& wanted, const char* why) {
  if (!json.has(key)) return;
  const Json& value = json.object().at(key);
  if (value.is_null() || value == wanted) return;
  refuse(json, key, dump_json(value), fmt::format("{} ({})", dump_json(wanted), why));
}

// Transformers 5 keeps theta in rope_parameters, 4 beside the others; either may carry a scaling that we lack.
double read_rope_theta(const JsonReader& json) {
  require_default(json, "rope_scaling", Json(nullptr), "scaled rotary embeddings are not implemented");
  const auto parameters = json.optional_object("rope_parameters");
  if (parameters) {
    require_default(*parameters, "rope_type", "default", "scaled rotary embeddings are not implemented");
    if (parameters->has("rope_theta")) return parameters->require_number("rope_theta");
  }
  return json.require_number("rope_theta");
}

// An id, a list of ids, or null for none.
std::vector<std::int32_t> read_ids(const JsonReader& json, const char* key, std::vector<std::int32_t> fallback) {
  if (!json.has(key)) return fallback;
  const Json& value = json.object().at(key);
  std::vector<std::int32_t> ids;
  const auto add = [&](const Json& id) {
    ids.push_back(static_cast<std::int32_t>(json_int(id, 0, max_int, fmt::format("{}: {}", json.where(), key))));
  };
  if (value.is_array())
    for (const Json& id : value) add(id);
  else if (!value.is_null())
    add(value);
  return ids;
}

// As they were read: one id is a number.
OrderedJson ids_as_json(const std::vector<std::int32_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? OrderedJson(ids.front()) : OrderedJson(ids);
}

}  // namespace

HfConfig read_hf_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  const Json document = read_json_file(path);
  const JsonReader json(document, path.string());
  const std::string type = json.optional_string("model_type").value_or("mixtral");
  if (type != "mixtral") refuse(json, "model_type", quote_for_message(type), "\"mixtral\"");
  require_default(json, "hidden_act", "silu", "the only activation of Mixtral");
  require_default(json, "tie_word_embeddings", false, "Mixtral's embedding and head are separate tensors");
  require_default(json, "attention_bias", false, "Mixtral has no biases");
  require_default(json, "quantization_config", Json(nullptr), "only f32, bf16 and f16 weights are read");

  HfConfig config;
  ModelConfig& m = config.model;
  m.vocab_size = json.require_int("vocab_size", 1, max_int);
  m.hidden_size = json.require_int("hidden_size", 1, 1 << 18);
  m.intermediate_size = json.require_int("intermediate_size", 1, 1 << 20);
  m.num_hidden_layers = json.require_int("num_hidden_layers", 1, 1024);
  m.num_attention_heads = json.require_int("num_attention_heads", 1, 1 << 16);
  m.num_key_value_heads = json.optional_int("num_key_value_heads", 1, 1 << 16).value_or(m.num_attention_heads);
  m.head_dim = json.optional_int("head_dim", 2, 1 << 16);
  if (m.head_dim && m.hidden_size % m.num_attention_heads == 0 && *m.head_dim == m.hidden_size / m.num_attention_heads)
    m.head_dim.reset();  // the default, spelled out
  m.num_local_experts = json.require_int("num_local_experts", 1, 4096);
  m.num_experts_per_tok = json.require_int("num_experts_per_tok", 1, 4096);
  m.max_position_embeddings = json.require_int("max_position_embeddings", 1, 1 << 24);
  m.rope_theta = read_rope_theta(json);
  m.rms_norm_eps = json.require_number("rms_norm_eps");
  m.initializer_range = json.optional_number("initializer_range").value_or(0.02);
  if (!(m.rope_theta > 0)) refuse(json, "rope_theta", fmt::format("{}", m.rope_theta), "a number above 0");
  if (!(m.rms_norm_eps > 0 && m.rms_norm_eps < 1)) refuse(json, "rms_norm_eps", fmt::format("{}", m.rms_norm_eps), "a number in (0, 1)");
  if (!(m.initializer_range >= 0)) refuse(json, "initializer_range", fmt::format("{}", m.initializer_range), "a number of 0 or more");
  m.sliding_window = json.optional_int("sliding_window", 1, 1 << 24);
  config.router_aux_loss_coef = json.optional_number("router_aux_loss_coef");
  const auto bos = read_ids(json, "bos_token_id", {1});
  config.bos = bos.empty() ? -1 : bos.front();
  config.eos = read_ids(json, "eos_token_id", {2});

  for (const auto& [key, problem] : m.problems()) throw std::runtime_error(fmt::format("{}: {}: {}", path.string(), key, problem));
  if (m.sliding_window)
    config.warnings.push_back(fmt::format(
        "{}: sliding_window is {}: the released Mixtral models have none, and derived checkpoints carry one by mistake; "
        "it is used as given", path.string(), *m.sliding_window));
  return config;
}

std::vector<std::int32_t> read_stop_ids(const std::filesystem::path& directory, const HfConfig& config) {
  std::vector<std::int32_t> ids = config.eos;
  const auto path = directory / "generation_config.json";
  if (!std::filesystem::exists(path)) return ids;
  const Json document = read_json_file(path);
  for (const std::int32_t id : read_ids(JsonReader(document, path.string()), "eos_token_id", {}))
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  return ids;
}

void write_hf_config(const std::filesystem::path& directory, const HfConfig& config) {
  const ModelConfig& m = config.model;
  const auto optional = [](const auto& value) { return value ? OrderedJson(*value) : OrderedJson(nullptr); };
  const auto special = [](std::int32_t id) { return id < 0 ? OrderedJson(nullptr) : OrderedJson(id); };
  OrderedJson json = {
      {"architectures", {"MixtralForCausalLM"}},
      {"attention_dropout", 0.0},
      {"bos_token_id", special(config.bos)},
      {"eos_token_id", ids_as_json(config.eos)},
      {"head_dim", m.head_size()},
      {"hidden_act", "silu"},
      {"hidden_size", m.hidden_size},
      {"initializer_range", m.initializer_range},
      {"intermediate_size", m.intermediate_size},
      {"max_position_embeddings", m.max_position_embeddings},
      {"model_type", "mixtral"},
      {"num_attention_heads", m.num_attention_heads},
      {"num_experts_per_tok", m.num_experts_per_tok},
      {"num_hidden_layers", m.num_hidden_layers},
      {"num_key_value_heads", m.num_key_value_heads},
      {"num_local_experts", m.num_local_experts},
      {"output_router_logits", false},
      {"rms_norm_eps", m.rms_norm_eps},
      // transformers 4 reads rope_theta, 5 reads rope_parameters.
      {"rope_parameters", {{"rope_theta", m.rope_theta}, {"rope_type", "default"}}},
      {"rope_theta", m.rope_theta},
      {"router_aux_loss_coef", config.router_aux_loss_coef.value_or(0.0)},
      {"router_jitter_noise", 0.0},
      {"sliding_window", optional(m.sliding_window)},
      {"tie_word_embeddings", false},
      {"torch_dtype", "float32"},
      {"use_cache", true},
      {"vocab_size", m.vocab_size},
  };
  write_json_file(directory / "config.json", json);
  write_json_file(directory / "generation_config.json",
                  OrderedJson{{"_from_model_config", true}, {"bos_token_id", special(config.bos)}, {"eos_token_id", ids_as_json(config.eos)}});
}

}  // namespace smoe
