#include "trainer/checkpoint/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/checkpoint/hf_rope.h"
#include "trainer/checkpoint/mistral_params.h"

namespace smoe {
namespace {
constexpr std::int64_t max_int = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(const JsonReader& json, const std::string& key, const std::string& found,
                         const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

// A key that must be absent, null or the one value that is computed here.
void require_default(const JsonReader& json, const char* key, const Json& wanted, const char* why) {
  if (!json.has(key)) return;
  const Json& value = json.object().at(key);
  if (value.is_null() || value == wanted) return;
  refuse(json, key, dump_json(value), fmt::format("{} ({})", dump_json(wanted), why));
}

// By what, and to how many bits.
void refuse_quantised_config(const JsonReader& json, const char* key) {
  const auto config = json.optional_object(key);
  if (!config) return;
  const auto text_of = [&](const char* name) {
    return config->has(name) && !config->object().at(name).is_null() ? dump_json(config->object().at(name)) : "";
  };
  std::string method = text_of("quant_method");
  if (method.empty()) method = text_of("load_in_4bit") == "true" ? "bitsandbytes" : "no quant_method";
  if (const std::string bits = text_of("bits"); !bits.empty()) method += ", " + bits + " bits";
  throw std::runtime_error(fmt::format(
      "{}: {}: the weights are quantised ({}), which are not read, expected F32, F64, BF16 or F16: name the "
      "model that they were quantised from",
      json.where(), key, method));
}

// Keys that write_hf_config() decides, whatever was found: those that it writes, their other names, and what speaks of other
// weights than those that it is written beside.
bool is_decided_here(const std::string& key) {
  static constexpr std::string_view keys[] = {"architectures",
                                              "model_type",
                                              "bos_token_id",
                                              "eos_token_id",
                                              "pad_token_id",
                                              "head_dim",
                                              "hidden_act",
                                              "hidden_size",
                                              "initializer_range",
                                              "intermediate_size",
                                              "max_position_embeddings",
                                              "num_attention_heads",
                                              "num_experts_per_tok",
                                              "num_hidden_layers",
                                              "num_key_value_heads",
                                              "num_local_experts",
                                              "num_experts",
                                              "rms_norm_eps",
                                              "rope_parameters",
                                              "rope_theta",
                                              "rope_scaling",
                                              "partial_rotary_factor",
                                              "original_max_position_embeddings",
                                              "router_aux_loss_coef",
                                              "sliding_window",
                                              "tie_word_embeddings",
                                              "torch_dtype",
                                              "dtype",
                                              "vocab_size",
                                              "scoring_func",
                                              "norm_topk_prob",
                                              "routed_scaling_factor",
                                              "forced_routing",
                                              "quantization_config",
                                              "compression_config",
                                              "_name_or_path",
                                              "_commit_hash",
                                              "auto_map"};
  return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

// Without a model_type, the class that the directory was saved from says what it is.
void require_mixtral(const JsonReader& json) {
  if (const auto type = json.optional_string("model_type")) {
    if (*type != "mixtral") refuse(json, "model_type", quote_for_message(*type), "\"mixtral\"");
    return;
  }
  const Json classes = json.has("architectures") ? json.object().at("architectures") : Json::array();
  if (!classes.is_array() || std::find(classes.begin(), classes.end(), "MixtralForCausalLM") == classes.end())
    refuse(json, "model_type", "none, and no \"MixtralForCausalLM\" in architectures", "\"mixtral\"");
}

// Keys of MixtralConfig, each with the default that transformers 4 and 5 give it where it is absent. Null is no default.
class MixtralDefaults {
 public:
  explicit MixtralDefaults(const JsonReader& json) : json_(json) {}

  std::int64_t integer(const char* key, std::int64_t absent, std::int64_t largest) {
    return is_there(key, absent) ? json_.require_int(key, 1, largest) : absent;
  }
  double number(const char* key, double absent) { return is_there(key, absent) ? json_.require_number(key) : absent; }

  // transformers 5 has a second name for the number of experts.
  std::int64_t experts() {
    constexpr const char *name = "num_local_experts", *other = "num_experts";
    if (!json_.has(other)) return integer(name, 8, largest_experts);
    const std::int64_t found = json_.require_int(other, 1, largest_experts);
    if (json_.has(name) && json_.require_int(name, 1, largest_experts) != found)
      refuse(json_, other, std::to_string(found), fmt::format("what {} says, or none", name));
    return found;
  }

  void warn(std::vector<std::string>& warnings) const {
    if (!taken_.empty())
      warnings.push_back(
          fmt::format("{}: absent keys have MixtralConfig's defaults: {}", json_.where(), fmt::join(taken_, ", ")));
  }

 private:
  static constexpr std::int64_t largest_experts = 4096;

  template <class T>
  bool is_there(const char* key, T absent) {
    if (json_.has(key)) return true;
    taken_.push_back(fmt::format("{} {}", key, absent));
    return false;
  }

  const JsonReader& json_;
  std::vector<std::string> taken_;
};

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
  else if (!value.is_null() && value != -1)  // as some write "none"
    add(value);
  return ids;
}

HfConfig read_config_json(const std::filesystem::path& path) {
  const Json document = read_json_file(path);
  const JsonReader json(document, path.string());
  require_mixtral(json);
  require_default(json, "hidden_act", "silu", "the only activation of Mixtral");
  require_default(json, "attention_bias", false, "Mixtral has no biases");
  for (const char* key : {"quantization_config", "compression_config"}) refuse_quantised_config(json, key);

  HfConfig config;
  ModelConfig& m = config.model;
  MixtralDefaults keys(json);
  m.vocab_size = keys.integer("vocab_size", 32000, max_int);
  m.hidden_size = keys.integer("hidden_size", 4096, 1 << 18);
  m.intermediate_size = keys.integer("intermediate_size", 14336, 1 << 20);
  m.num_hidden_layers = keys.integer("num_hidden_layers", 32, 1024);
  m.num_attention_heads = keys.integer("num_attention_heads", 32, 1 << 16);
  const bool ungrouped = json.has("num_key_value_heads") && json.object().at("num_key_value_heads").is_null();
  m.num_key_value_heads = ungrouped ? m.num_attention_heads : keys.integer("num_key_value_heads", 8, 1 << 16);
  m.head_dim = json.optional_int("head_dim", 2, 1 << 16);
  if (m.head_dim && m.hidden_size % m.num_attention_heads == 0 && *m.head_dim == m.hidden_size / m.num_attention_heads)
    m.head_dim.reset();  // the default, spelled out
  m.num_local_experts = keys.experts();
  m.num_experts_per_tok = keys.integer("num_experts_per_tok", 2, 4096);
  if (const auto scoring = json.optional_string("scoring_func")) {
    if (*scoring != "softmax" && *scoring != "sigmoid")
      refuse(json, "scoring_func", quote_for_message(*scoring), "\"softmax\" or \"sigmoid\"");
    m.scoring_func = *scoring == "sigmoid" ? Score::sigmoid : Score::softmax;
  }
  m.norm_topk_prob = json.optional_bool("norm_topk_prob").value_or(true);
  m.routed_scaling_factor = json.optional_number("routed_scaling_factor").value_or(1.0);
  if (!(m.routed_scaling_factor > 0))
    refuse(json, "routed_scaling_factor", fmt::format("{}", m.routed_scaling_factor), "a number above 0");
  m.max_position_embeddings = keys.integer("max_position_embeddings", 131072, 1 << 24);
  m.rms_norm_eps = keys.number("rms_norm_eps", 1e-5);
  m.initializer_range = json.optional_number("initializer_range").value_or(0.02);
  config.tied_head = json.optional_bool("tie_word_embeddings").value_or(false);
  if (!(m.rms_norm_eps > 0 && m.rms_norm_eps < 1))
    refuse(json, "rms_norm_eps", fmt::format("{}", m.rms_norm_eps), "a number in (0, 1)");
  if (!(m.initializer_range >= 0))
    refuse(json, "initializer_range", fmt::format("{}", m.initializer_range), "a number of 0 or more");
  m.sliding_window = json.optional_int("sliding_window", 1, 1 << 24);
  config.router_aux_loss_coef = json.optional_number("router_aux_loss_coef");
  const auto bos = read_ids(json, "bos_token_id", {1});
  config.bos = bos.empty() ? -1 : bos.front();
  config.eos = read_ids(json, "eos_token_id", {2});
  // -1 is how some files write none.
  config.pad = static_cast<std::int32_t>(
      json.optional_int("pad_token_id", -1, std::numeric_limits<std::int32_t>::max()).value_or(-1));

  config.forced_routing = json.optional_string("forced_routing").value_or("");
  if (!config.forced_routing.empty())
    config.warnings.push_back(fmt::format(
        "{}: forced_routing is {}: these weights come from a benchmark, whose experts were trained on tokens that the routers did not "
        "choose (router.forced_routing)",
        path.string(), quote_for_message(config.forced_routing)));

  keys.warn(config.warnings);
  for (const auto& [key, problem] : m.problems())
    throw std::runtime_error(fmt::format("{}: {}: {}", path.string(), key, problem));
  read_hf_rope(json, m, config.warnings);
  for (const auto& [key, value] : json.object().items())
    if (!is_decided_here(key)) config.kept[key] = value;
  return config;
}

// As they were read: one id is a number.
OrderedJson ids_as_json(const std::vector<std::int32_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? OrderedJson(ids.front()) : OrderedJson(ids);
}

}  // namespace

std::filesystem::path hf_config_file(const std::filesystem::path& directory) {
  const auto config = directory / "config.json", params = directory / mistral_params_file;
  return !std::filesystem::exists(config) && std::filesystem::exists(params) ? params : config;
}

bool has_hf_config(const std::filesystem::path& directory) {
  return std::filesystem::exists(hf_config_file(directory));
}

HfConfig read_hf_config(const std::filesystem::path& directory) { return read_hf_config(directory, {}); }

HfConfig read_hf_config(const std::filesystem::path& directory, const ModelConfig& wanted) {
  const auto path = hf_config_file(directory);
  HfConfig config = path.filename() == mistral_params_file ? read_mistral_params(path) : read_config_json(path);
  ModelConfig& m = config.model;
  if (config.tied_head)
    config.warnings.push_back(fmt::format(
        "{}: tie_word_embeddings is true: here embedding and head are two tensors, which start equal and are trained apart; what is "
        "exported holds both and says so",
        path.string()));
  if (wanted.sliding_window_given) {
    m.sliding_window = wanted.sliding_window;
    m.sliding_window_given = true;
  } else if (m.sliding_window) {
    config.warnings.push_back(fmt::format(
        "{}: sliding_window is {}: the released Mixtral models have none, and derived checkpoints carry one by mistake; it is used "
        "as given, and model.sliding_window=null beside model.from leaves it away",
        path.string(), *m.sliding_window));
  }
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
  const OrderedJson rope_scaling = hf_rope_scaling(m);
  OrderedJson rope_parameters = {{"rope_theta", m.rope_theta}};
  rope_parameters.update(rope_scaling);
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
      // transformers 4 reads rope_theta and rope_scaling, 5 reads rope_parameters.
      {"rope_parameters", rope_parameters},
      {"rope_theta", m.rope_theta},
      {"router_aux_loss_coef", config.router_aux_loss_coef.value_or(0.0)},
      {"router_jitter_noise", 0.0},
      {"sliding_window", optional(m.sliding_window)},
      {"tie_word_embeddings", false},
      {"torch_dtype", config.weights == DType::bf16 ? "bfloat16" : "float32"},
      {"use_cache", true},
      {"vocab_size", m.vocab_size},
  };
  if (config.pad >= 0) json["pad_token_id"] = config.pad;
  if (!m.routes_as_mixtral()) {  // by DeepSeek-V3's names; transformers' Mixtral has no such keys
    json["scoring_func"] = m.scoring_func == Score::sigmoid ? "sigmoid" : "softmax";
    json["norm_topk_prob"] = m.norm_topk_prob;
    json["routed_scaling_factor"] = m.routed_scaling_factor;
  }
  if (!config.forced_routing.empty()) json["forced_routing"] = config.forced_routing;
  if (m.rope_scaling.type != RopeType::standard) json["rope_scaling"] = rope_scaling;
  for (const auto& [key, value] : config.kept.items()) json[key] = OrderedJson(value);
  write_json_file(directory / "config.json", json);
  write_json_file(directory / "generation_config.json", OrderedJson{{"_from_model_config", true},
                                                                    {"bos_token_id", special(config.bos)},
                                                                    {"eos_token_id", ids_as_json(config.eos)}});
}

}  // namespace smoe
