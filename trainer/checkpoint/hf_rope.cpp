#include "trainer/checkpoint/hf_rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>

#include "model/rope_frequencies.h"

namespace smoe {
namespace {

constexpr double default_theta = 1.0e6;  // MixtralConfig's
constexpr std::int64_t most_positions = 1 << 24;

[[noreturn]] void refuse_rope(const JsonReader& json, const std::string& key, const std::string& found,
                              const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

double above(const JsonReader& json, const std::string& key, double value, double bound) {
  if (!(value > bound)) refuse_rope(json, key, fmt::format("{}", value), fmt::format("a number above {}", bound));
  return value;
}

bool given(const JsonReader& json, const std::string& key) { return json.has(key) && !json.object().at(key).is_null(); }

// "rope_scaling" or "rope_parameters": where transformers looks; nothing where neither says anything.
std::optional<std::string> place_of_rope(const JsonReader& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const auto object = config.optional_object(key); object && !object->object().empty()) return key;
  return std::nullopt;
}

std::string type_of(const JsonReader& rope) {
  for (const char* key : {"rope_type", "type"})
    if (rope.has(key)) return rope.require_string(key);
  return "default";
}

RopeType known_type(const JsonReader& rope) {
  const std::string name = type_of(rope);
  std::vector<std::string> names;
  for (const auto& [type, type_name] : choices(RopeType{})) {
    if (name == type_name) return type;
    names.push_back(fmt::format("\"{}\"", type_name));
  }
  refuse_rope(rope, rope.has("rope_type") ? "rope_type" : "type", quote_for_message(name),
              fmt::format("one of {}: other scalings are not computed here", fmt::join(names, ", ")));
}

// What each type reads beside its name and theta.
std::set<std::string> keys_of(RopeType type) {
  switch (type) {
    case RopeType::standard: return {};
    case RopeType::linear:
    case RopeType::dynamic: return {"factor"};
    case RopeType::yarn:
      return {"factor",           "original_max_position_embeddings",
              "attention_factor", "beta_fast",
              "beta_slow",        "mscale",
              "mscale_all_dim",   "truncate"};
    case RopeType::llama3: return {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"};
  }
  return {};
}

void check_keys(const JsonReader& rope, RopeType type, std::vector<std::string>& warnings) {
  const std::set<std::string> read = keys_of(type);
  std::vector<std::string> unread;
  for (const auto& [key, value] : rope.object().items()) {
    if (value.is_object())
      refuse_rope(rope, quote_for_message(key), "an object", "one set of values, which all layers share");
    if (key == "rope_theta" || key == "rope_type" || key == "partial_rotary_factor" || value.is_null() ||
        read.contains(key))
      continue;
    if (key != "type" || value != Json(type_of(rope))) unread.push_back(quote_for_message(key));
  }
  if (!unread.empty())
    warnings.push_back(fmt::format("{}: {} is not read where the type is \"{}\", nor by transformers", rope.where(),
                                   fmt::join(unread, ", "), type_of(rope)));
}

// The original length: transformers takes the one beside the rope's object before the one inside.
std::int64_t original_positions(const JsonReader& config, const JsonReader& rope, const ModelConfig& model) {
  constexpr const char* key = "original_max_position_embeddings";
  for (const JsonReader* place : {&config, &rope})
    if (const auto found = place->optional_int(key, 1, most_positions)) return *found;
  return model.max_position_embeddings;
}

double yarn_scale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

void read_yarn(const JsonReader& rope, RopeScaling& scaling) {
  // As in Python, where 0 is no value.
  const auto or_else = [&](const char* key, double fallback) {
    const double value = rope.optional_number(key).value_or(0.0);
    return value == 0 ? fallback : above(rope, key, value, 0);
  };
  scaling.beta_fast = or_else("beta_fast", scaling.beta_fast);
  scaling.beta_slow = or_else("beta_slow", scaling.beta_slow);
  if (rope.has("truncate")) scaling.truncate = rope.optional_bool("truncate").value_or(false);
  const double mscale = rope.optional_number("mscale").value_or(0.0),
               all_dim = rope.optional_number("mscale_all_dim").value_or(0.0);
  if (const auto factor = rope.optional_number("attention_factor"))
    scaling.attention_factor = *factor;
  else if (mscale != 0 && all_dim != 0)
    scaling.attention_factor = yarn_scale(scaling.factor, mscale) / yarn_scale(scaling.factor, all_dim);
  else
    scaling.attention_factor = yarn_scale(scaling.factor, 1.0);
  above(rope, "attention_factor", scaling.attention_factor, 0);
}

RopeScaling read_scaling(const JsonReader& config, const JsonReader& rope, const ModelConfig& model,
                         std::vector<std::string>& warnings) {
  RopeScaling scaling{.type = known_type(rope)};
  check_keys(rope, scaling.type, warnings);
  if (scaling.type == RopeType::standard) return scaling;
  if (scaling.type == RopeType::yarn || scaling.type == RopeType::llama3)
    scaling.original_max_position_embeddings = original_positions(config, rope, model);
  if (scaling.type == RopeType::yarn && rope.has("factor") && !given(rope, "factor"))
    scaling.factor = static_cast<double>(model.max_position_embeddings) /
                     static_cast<double>(scaling.original_max_position_embeddings);
  else
    scaling.factor = above(rope, "factor", rope.require_number("factor"), 0);
  if (scaling.factor < 1)
    warnings.push_back(fmt::format("{}: factor is {}: below 1 it shortens what a model can read; it is used as given",
                                   rope.where(), scaling.factor));
  if (scaling.type == RopeType::dynamic && model.head_size() <= 2)
    refuse_rope(rope, "type", "\"dynamic\" with heads of size 2",
                "larger heads: its formula divides by their size - 2");
  if (scaling.type == RopeType::yarn) {
    above(rope, "rope_theta", model.rope_theta, 1);  // its logarithm is divided by
    read_yarn(rope, scaling);
  }
  if (scaling.type == RopeType::llama3) {
    scaling.low_freq_factor = above(rope, "low_freq_factor", rope.require_number("low_freq_factor"), 0);
    scaling.high_freq_factor =
        above(rope, "high_freq_factor", rope.require_number("high_freq_factor"), scaling.low_freq_factor);
  }
  return scaling;
}

// An object with its type under one name and its theta inside.
Json in_one_spelling(const JsonReader& config, const JsonReader& rope) {
  Json json = rope.object();
  json.erase("type");
  json["rope_type"] = type_of(rope);
  if (!json.contains("rope_theta")) json["rope_theta"] = config.optional_number("rope_theta").value_or(default_theta);
  return json;
}

// Directories for both generations of transformers say the same twice. Where they do not, one is read and one is not.
void compare_places(const JsonReader& config, std::vector<std::string>& warnings) {
  const JsonReader scaling = config.require_object("rope_scaling"),
                   parameters = config.require_object("rope_parameters");
  if (in_one_spelling(config, scaling) != in_one_spelling(config, parameters))
    warnings.push_back(fmt::format(
        "{}: rope_scaling and rope_parameters differ: rope_scaling is read, as transformers does", config.where()));
}

// Mixtral's attention rotates whole heads: with less, transformers ignores the factor or fails.
void require_whole_heads(const JsonReader& json) {
  const auto factor = json.optional_number("partial_rotary_factor");
  if (factor && *factor != 1)
    refuse_rope(json, "partial_rotary_factor", fmt::format("{}", *factor), "1 or none: Mixtral rotates whole heads");
}

}  // namespace

void read_hf_rope(const JsonReader& config, ModelConfig& model, std::vector<std::string>& warnings) {
  model.rope_theta = config.optional_number("rope_theta").value_or(default_theta);
  require_whole_heads(config);
  const auto place = place_of_rope(config);
  if (place) {
    const JsonReader rope = config.require_object(*place);
    require_whole_heads(rope);
    model.rope_theta = rope.optional_number("rope_theta").value_or(model.rope_theta);
    above(given(rope, "rope_theta") ? rope : config, "rope_theta", model.rope_theta, 0);
    if (const double beside = config.optional_number("rope_theta").value_or(model.rope_theta);
        place == "rope_parameters" && beside != model.rope_theta)
      warnings.push_back(fmt::format(
          "{}: rope_theta is {}, and in rope_parameters it is {}: the latter is read, as transformers 5 does; 4 reads the former",
          config.where(), beside, model.rope_theta));
    model.rope_scaling = read_scaling(config, rope, model, warnings);
    if (place == "rope_scaling" && given(config, "rope_parameters")) compare_places(config, warnings);
  }
  above(config, "rope_theta", model.rope_theta, 0);
  const RopeFrequencies rope = rope_frequencies(model);
  if (!std::isfinite(rope.scale) ||
      !std::all_of(rope.frequencies.begin(), rope.frequencies.end(), [](float f) { return std::isfinite(f); }))
    refuse_rope(config, place.value_or("rope_theta"), "values that give an infinite angle or none",
                "frequencies within f32's range");
  if (!given(config, "rope_theta") && !(place && given(config.require_object(*place), "rope_theta")))
    warnings.push_back(
        fmt::format("{}: no rope_theta: it has MixtralConfig's default {}", config.where(), default_theta));
}

OrderedJson hf_rope_scaling(const ModelConfig& model) {
  const RopeScaling& s = model.rope_scaling;
  OrderedJson json;
  for (const auto& [type, name] : choices(s.type))
    if (type == s.type) json["rope_type"] = name;
  if (s.type == RopeType::standard) return json;
  json["factor"] = s.factor;
  if (s.type == RopeType::linear || s.type == RopeType::dynamic) return json;
  // Without it transformers takes all positions of the model; with it version 4 puts another factor in place of yarn's.
  if (s.type == RopeType::llama3 || s.original_max_position_embeddings != model.max_position_embeddings)
    json["original_max_position_embeddings"] = s.original_max_position_embeddings;
  if (s.type == RopeType::llama3) {
    json["low_freq_factor"] = s.low_freq_factor;
    json["high_freq_factor"] = s.high_freq_factor;
  } else {
    json["attention_factor"] = s.attention_factor;
    json["beta_fast"] = s.beta_fast;
    json["beta_slow"] = s.beta_slow;
    json["truncate"] = s.truncate;
  }
  return json;
}

}  // namespace smoe
