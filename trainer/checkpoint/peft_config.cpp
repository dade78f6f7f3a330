#include "trainer/checkpoint/peft_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"

namespace smoe {
namespace {

constexpr std::int64_t largest_rank = 65536;
constexpr double smallest_alpha = 1e-9,
                 largest_alpha = 1e9;  // beyond, no scale made of it is a number that can be used

[[noreturn]] void refuse_key(const JsonReader& json, const std::string& key, const std::string& found,
                             const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

// Absent, null, false, "", [] and {} say nothing.
bool says_nothing(const JsonReader& json, const std::string& key) {
  if (!json.has(key)) return true;
  const Json& value = json.object().at(key);
  return value.is_null() || value == false || ((value.is_string() || value.is_structured()) && value.empty()) ||
         value == "";
}

// What an adapter computes otherwise that has such a key.
constexpr std::array<std::pair<const char*, const char*>, 13> variants = {{
    {"use_dora", "DoRA"},
    {"fan_in_fan_out", "weights that are stored [in,out]"},
    {"lora_bias", "an adapter with biases"},
    {"trainable_token_indices", "an adapter with a trained embedding or head"},
    {"layer_replication", "layers that are run several times"},
    {"use_qalora", "QALoRA, which pools its input"},
    {"use_bdlora", "block-diagonal adapters"},
    {"alora_invocation_tokens", "adapters that begin to act at a token"},
    {"arrow_config", "a router over several adapters"},
    {"kasa_config", "adapters with singular values"},
    {"monteclora_config", "adapters that are drawn anew"},
    {"megatron_config", "layers of Megatron"},
    {"lora_magnitude_vector", "DoRA"},
}};

// What says how training began or was done, or what is said by the tensors; nothing of it changes what an adapter computes.
constexpr std::array<std::string_view, 31> known_keys = {"auto_mapping",
                                                         "base_model_name_or_path",
                                                         "inference_mode",
                                                         "init_lora_weights",
                                                         "layers_pattern",
                                                         "layers_to_transform",
                                                         "loftq_config",
                                                         "lora_alpha",
                                                         "lora_dropout",
                                                         "megatron_core",
                                                         "modules_to_save",
                                                         "peft_type",
                                                         "peft_version",
                                                         "qalora_group_size",
                                                         "r",
                                                         "rank_pattern",
                                                         "alpha_pattern",
                                                         "revision",
                                                         "target_modules",
                                                         "target_parameters",
                                                         "task_type",
                                                         "use_rslora",
                                                         "bias",
                                                         "exclude_modules",
                                                         "eva_config",
                                                         "corda_config",
                                                         "lora_ga_config",
                                                         "velora_config",
                                                         "ensure_weight_tying",
                                                         "runtime_config",
                                                         "_custom_modules"};

void require_no_trained_modules(const JsonReader& json) {
  if (says_nothing(json, "modules_to_save")) return;
  const std::string found = dump_json(json.object().at("modules_to_save"));
  const bool ends = found.find("embed") != std::string::npos || found.find("head") != std::string::npos;
  throw std::runtime_error(fmt::format(
      "{}: modules_to_save: found {}: {} is not read here, only the A and B of linear layers", json.where(),
      quote_for_message(found),
      ends ? "an adapter with a trained embedding or head" : "an adapter with modules that are trained whole"));
}

// The base of an adapter that began otherwise is not the released one: what was added to A B then was taken from W.
void require_unchanged_base(const JsonReader& json) {
  if (says_nothing(json, "init_lora_weights")) return;
  const Json& value = json.object().at("init_lora_weights");
  if (value == true || value == "gaussian" || value == "eva" || value == "orthogonal") return;
  refuse_key(
      json, "init_lora_weights", quote_for_message(dump_json(value)),
      "true, false, gaussian, eva or orthogonal: others (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA) change the base's weights "
      "too; PEFT's save_pretrained(..., path_initial_model_for_weight_conversion) makes a plain adapter of one");
}

std::vector<std::string> names_in(const JsonReader& json, const std::string& key) {
  std::vector<std::string> names;
  if (says_nothing(json, key)) return names;
  for (const Json& name : json.require_array(key)) names.push_back(json_string(name, json.where() + ": " + key));
  return names;
}

std::vector<std::int64_t> layers_in(const JsonReader& json) {
  constexpr const char* key = "layers_to_transform";
  constexpr std::int64_t most = 100000;
  if (says_nothing(json, key)) return {};
  if (json.object().at(key).is_number()) return {json.require_int(key, 0, most)};
  std::vector<std::int64_t> layers;
  for (const Json& layer : json.require_array(key))
    layers.push_back(json_int(layer, 0, most, json.where() + ": " + key));
  std::sort(layers.begin(), layers.end());
  return layers;
}

void require_alpha(const JsonReader& json, const std::string& key, double alpha) {
  if (!(alpha >= smallest_alpha && alpha <= largest_alpha))
    refuse_key(json, key, fmt::format("{}", alpha), fmt::format("in [{}, {}]", smallest_alpha, largest_alpha));
}

// The end of a path that a pattern means: "o_proj", "self_attn.o_proj", ".*\.o_proj", each with or without a $. Others are
// regular expressions.
std::string end_meant_by(const JsonReader& json, const std::string& key, std::string_view pattern) {
  const auto other = [&]() {
    refuse_key(
        json, key, quote_for_message(pattern),
        "the end of a module's name, as in o_proj or .*\\.gate_up_proj: other regular expressions are not read here");
  };
  std::string_view rest = pattern;
  if (rest.size() > 512) other();
  if (rest.starts_with(".*\\.")) rest.remove_prefix(4);
  if (rest.ends_with('$')) rest.remove_suffix(1);
  std::string end;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (rest[i] == '\\' && i + 1 < rest.size() && rest[i + 1] == '.') ++i;
    const char c = rest[i];
    if (!(c == '.' || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) other();
    end += c;
  }
  if (end.empty()) other();
  return end;
}

ByEnd<double> pattern_in(const JsonReader& json, const std::string& key, bool ranks) {
  ByEnd<double> found;
  if (says_nothing(json, key)) return found;
  const JsonReader patterns = json.require_object(key);
  std::vector<std::pair<std::string, double>> all;
  for (const auto& [pattern, value] : patterns.object().items()) {
    const double number =
        ranks ? static_cast<double>(patterns.require_int(pattern, 1, largest_rank)) : patterns.require_number(pattern);
    if (!ranks) require_alpha(json, key, number);
    all.emplace_back(end_meant_by(json, key, pattern), number);
    found.add(all.back().first, number);
  }
  // PEFT takes the first of those that match, in an order that a JSON object does not have.
  for (const auto& [end, number] : all)
    found.for_each(end, [&](double other) {
      if (other != number)
        refuse_key(json, key, fmt::format("{} and {} for {}", number, other, quote_for_message(end)), "one of the two");
    });
  return found;
}

}  // namespace

AdapterSettings read_adapter_settings(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kAdapterConfigFile;
  if (!std::filesystem::exists(path))
    throw std::runtime_error(
        fmt::format("{}: holds no {}: expected a directory that PEFT wrote, or a checkpoint's adapter/",
                    directory.string(), kAdapterConfigFile));
  const Json text = read_json_file(path, {.max_bytes = 16 << 20});
  const JsonReader json(text, path.string());
  AdapterSettings s;
  if (const std::string& type = json.require_string("peft_type"); type != "LORA")
    refuse_key(json, "peft_type", quote_for_message(type), "\"LORA\"");
  for (const auto& [key, what] : variants)
    if (!says_nothing(json, key))
      refuse_key(json, key, quote_for_message(dump_json(json.object().at(key))),
                 fmt::format("none: {} cannot be read here", what));
  require_no_trained_modules(json);
  require_unchanged_base(json);
  if (const auto bias = json.optional_string("bias"); bias && *bias != "none")
    refuse_key(json, "bias", quote_for_message(*bias), "\"none\" (a Mixtral has no biases)");

  s.r = json.require_int("r", 1, largest_rank);
  s.alpha = json.require_number("lora_alpha");
  require_alpha(json, "lora_alpha", s.alpha);
  s.dropout = json.optional_number("lora_dropout").value_or(0);
  if (!(s.dropout >= 0 && s.dropout < 1)) refuse_key(json, "lora_dropout", fmt::format("{}", s.dropout), "in [0, 1)");
  s.rslora = json.optional_bool("use_rslora").value_or(false);
  s.base = json.optional_string("base_model_name_or_path").value_or("");
  s.version = json.optional_string("peft_version").value_or("");
  s.names_modules = !(json.has("target_modules") && json.object().at("target_modules").is_string());
  if (s.names_modules) s.modules = names_in(json, "target_modules");
  s.parameters = names_in(json, "target_parameters");
  if (s.names_modules && s.modules.empty() && s.parameters.empty())
    refuse_key(json, "target_modules", "none", "names of modules that have an adapter");
  s.excludes = !says_nothing(json, "exclude_modules");
  s.layers = layers_in(json);
  s.ranks = pattern_in(json, "rank_pattern", true);
  s.alphas = pattern_in(json, "alpha_pattern", false);
  for (const auto& [key, value] : json.object().items()) {
    const auto is_key = [&](const auto& known) { return key == known; };
    const bool known = std::any_of(known_keys.begin(), known_keys.end(), is_key) ||
                       std::any_of(variants.begin(), variants.end(), [&](const auto& v) { return key == v.first; });
    if (!known && !says_nothing(json, key))
      s.warnings.push_back(
          fmt::format("{}: {} is not known here, and what it says is not done", json.where(), quote_for_message(key)));
  }
  return s;
}

void write_peft_config(const std::filesystem::path& directory, const LoraConfig& lora, const std::string& base,
                       const ModelConfig& model) {
  const auto has = [&](std::string_view module) {
    return std::find(lora.target_modules.begin(), lora.target_modules.end(), module) != lora.target_modules.end();
  };
  const bool fused_there = has("w1") || has("w2") || has("w3") || has("gate");
  const bool other_scale = lora.rslora && has("w1") && has("w3");
  const double alpha = other_scale ? lora.scale() * static_cast<double>(lora.r) : lora.alpha;
  Json layers = nullptr;
  if (lora.layers.size() == 2 && lora.layers[1] - lora.layers[0] + 1 < model.num_hidden_layers) {
    layers = Json::array();
    for (std::int64_t layer = lora.layers[0]; layer <= lora.layers[1]; ++layer) layers.push_back(layer);
  }
  std::vector<std::string> modules = lora.target_modules;
  std::sort(modules.begin(), modules.end());
  const bool whole = alpha == std::floor(alpha) && alpha < 1e15;
  write_json_file(directory / kAdapterConfigFile,
                  Json{{"alpha_pattern", Json::object()},
                       {"auto_mapping", nullptr},
                       {"base_model_name_or_path", base.empty() ? Json(nullptr) : Json(base)},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       // Without it PEFT up to 0.18 takes an expert's number for its layer's.
                       {"layers_pattern", layers.is_null() ? Json(nullptr) : Json("layers")},
                       {"layers_to_transform", layers},
                       {"loftq_config", Json::object()},
                       {"lora_alpha", whole ? Json(static_cast<std::int64_t>(alpha)) : Json(alpha)},
                       {"lora_dropout", fused_there ? 0.0 : lora.dropout},
                       {"megatron_config", nullptr},
                       {"megatron_core", "megatron.core"},
                       {"modules_to_save", nullptr},
                       {"peft_type", "LORA"},
                       {"r", lora.r},
                       {"rank_pattern", Json::object()},
                       {"revision", nullptr},
                       {"target_modules", modules},
                       {"task_type", "CAUSAL_LM"},
                       {"use_dora", false},
                       {"use_rslora", lora.rslora && !other_scale}});
}

}  // namespace smoe
