#include "trainer/checkpoint/mistral_params.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

#include "data/files/json.h"

namespace smoe {
namespace {

constexpr std::int64_t longest_of_8x7b = 32768;

[[noreturn]] void refuse_param(const JsonReader& json, const char* key, const std::string& found,
                               const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

// A key that asks for what is not computed here, unless it is absent or has this value.
struct Foreign {
  const char* key;
  Json harmless;
  const char* what;
};

void refuse_foreign(const JsonReader& json, std::initializer_list<Foreign> keys) {
  for (const auto& [key, harmless, what] : keys) {
    if (!json.has(key)) continue;
    const Json& value = json.object().at(key);
    if (value.is_null() || value == harmless) continue;
    const std::string found = value.is_object() ? "an object" : dump_json(value);
    refuse_param(json, key, found,
                 harmless.is_null() ? fmt::format("none: {}", what) : fmt::format("{}: {}", dump_json(harmless), what));
  }
}

// A number, or, as some files have it, a number as text.
std::optional<std::int64_t> read_window(const JsonReader& json) {
  constexpr const char* key = "sliding_window";
  constexpr std::int64_t widest = 1 << 24;
  if (!json.has(key) || !json.object().at(key).is_string()) return json.optional_int(key, 1, widest);
  const std::string text = json.require_string(key);
  std::int64_t window = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), window);
  if (error != std::errc() || end != text.data() + text.size() || window < 1 || window > widest)
    refuse_param(json, key, quote_for_message(text), fmt::format("a number from 1 to {}", widest));
  return window;
}

void read_experts(const JsonReader& json, ModelConfig& m) {
  if (!json.has("moe") || json.object().at("moe").is_null())
    refuse_param(json, "moe", "none", "{num_experts, num_experts_per_tok}: a dense model is no Mixtral");
  const JsonReader moe = json.require_object("moe");
  m.num_local_experts = moe.require_int("num_experts", 1, 4096);
  m.num_experts_per_tok = moe.require_int("num_experts_per_tok", 1, 4096);
  refuse_foreign(moe, {{"num_shared_experts", 0, "experts that every token takes are not computed here"},
                       {"first_k_dense_replace", 0, "layers without experts are not computed here"},
                       {"route_every_n", 1, "layers without experts are not computed here"},
                       {"num_expert_groups", 1, "groups of experts are not computed here"},
                       {"routed_scale", 1.0, "weights of experts are not scaled in a Mixtral"}});
}

}  // namespace

HfConfig read_mistral_params(const std::filesystem::path& file) {
  const Json document = read_json_file(file);
  const JsonReader json(document, file.string());
  refuse_foreign(json, {{"quantization", nullptr, "quantised weights are not read: name the model they were made from"},
                        {"model_type", "transformer", "other architectures are not computed here"},
                        {"use_biases", false, "Mixtral has no biases"},
                        {"causal", true, "attention looks back alone here"},
                        {"vision_encoder", nullptr, "images are not read"},
                        {"multimodal", nullptr, "only text is read"},
                        {"yarn", nullptr, "this format's scalings of the rotary embedding are not read"},
                        {"llama_4_scaling", nullptr, "this format's scalings of the rotary embedding are not read"},
                        {"q_lora_rank", nullptr, "latent attention is not computed here"},
                        {"kv_lora_rank", nullptr, "latent attention is not computed here"}});
  HfConfig config;
  ModelConfig& m = config.model;
  m.vocab_size = json.require_int("vocab_size", 1, std::numeric_limits<std::int32_t>::max());
  m.hidden_size = json.require_int("dim", 1, 1 << 18);
  m.intermediate_size = json.require_int("hidden_dim", 1, 1 << 20);
  m.num_hidden_layers = json.require_int("n_layers", 1, 1024);
  m.num_attention_heads = json.require_int("n_heads", 1, 1 << 16);
  m.num_key_value_heads = json.require_int("n_kv_heads", 1, 1 << 16);
  m.head_dim = json.require_int("head_dim", 2, 1 << 16);
  if (m.hidden_size % m.num_attention_heads == 0 && *m.head_dim == m.hidden_size / m.num_attention_heads)
    m.head_dim.reset();  // the default, spelled out
  m.rms_norm_eps = json.require_number("norm_eps");
  if (!(m.rms_norm_eps > 0 && m.rms_norm_eps < 1))
    refuse_param(json, "norm_eps", fmt::format("{}", m.rms_norm_eps), "a number in (0, 1)");
  m.sliding_window = read_window(json);
  read_experts(json, m);
  config.tied_head = json.optional_bool("tied_embeddings").value_or(false);

  const auto theta = json.optional_number("rope_theta");
  m.rope_theta = theta.value_or(m.sliding_window ? 1.0e4 : 1.0e6);
  if (!(m.rope_theta > 0)) refuse_param(json, "rope_theta", fmt::format("{}", m.rope_theta), "a number above 0");
  if (!theta)
    config.warnings.push_back(
        fmt::format("{}: no rope_theta: it is {}, as in mistral-inference", file.string(), m.rope_theta));
  const auto positions = json.optional_int("max_position_embeddings", 1, 1 << 24);
  const auto length = positions ? positions : json.optional_int("max_seq_len", 1, 1 << 24);
  m.max_position_embeddings = length.value_or(longest_of_8x7b);
  if (!length)
    config.warnings.push_back(fmt::format("{}: no max_position_embeddings: {} are taken, as many as Mixtral 8x7B has",
                                          file.string(), longest_of_8x7b));
  for (const auto& [key, problem] : m.problems())
    throw std::runtime_error(fmt::format("{}: {}: {}", file.string(), key, problem));
  return config;
}

}  // namespace smoe
