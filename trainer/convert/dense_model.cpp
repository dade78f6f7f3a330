#include "trainer/convert/dense_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint/hf_rope.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr const char* embedding_name = "model.embed_tokens.weight";
constexpr const char* head_name = "lm_head.weight";

[[noreturn]] void refuse_dense(const JsonReader& json, const std::string& key, const std::string& found,
                               const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", json.where(), key, found, expected));
}

bool is_set(const JsonReader& json, const char* key) { return json.has(key) && !json.object().at(key).is_null(); }

// "llama" or "mistral". Without a model_type, the class that the directory was saved from says what it is.
std::string dense_type(const JsonReader& json) {
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size"})
    if (is_set(json, key))
      refuse_dense(json, key, dump_json(json.object().at(key)),
                   "none: this is a mixture of experts already, and upcycling begins with a dense model");
  const std::string wanted = R"("llama" or "mistral", the dense models whose layers are a Mixtral's)";
  if (const auto type = json.optional_string("model_type")) {
    if (*type == "llama" || *type == "mistral") return *type;
    if (type->starts_with("qwen2"))
      refuse_dense(json, "model_type", quote_for_message(*type),
                   wanted + "; its queries, keys and values have biases, for which a Mixtral has no place");
    refuse_dense(json, "model_type", quote_for_message(*type), wanted);
  }
  if (is_set(json, "architectures"))
    for (const Json& name : json.require_array("architectures"))
      for (const auto& [type, architecture] :
           {std::pair{"llama", "LlamaForCausalLM"}, {"mistral", "MistralForCausalLM"}})
        if (name == architecture) return type;
  refuse_dense(json, "model_type", "none, and no class in architectures that is known", wanted);
}

void refuse_what_has_no_place(const JsonReader& json) {
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (json.optional_bool(key).value_or(false)) refuse_dense(json, key, "true", "false: a Mixtral has no biases");
  if (const auto activation = json.optional_string("hidden_act").value_or("silu"); activation != "silu")
    refuse_dense(json, "hidden_act", quote_for_message(activation), "\"silu\", the only activation of a Mixtral");
  if (is_set(json, "quantization_config"))
    refuse_dense(json, "quantization_config", "an object",
                 "none: only f32, f64, bf16 and f16 weights are read; save the model without quantization");
}

bool has_theta(const JsonReader& json) {
  if (is_set(json, "rope_theta")) return true;
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const auto rope = json.optional_object(key); rope && is_set(*rope, "rope_theta")) return true;
  return false;
}

// "[4096, 14336]"
std::string dims_text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

bool same_bytes(const TensorDirectory& tensors, const std::string& a, const std::string& b) {
  const TensorInfo &first = tensors.info(a), &second = tensors.info(b);
  if (first.type != second.type || first.shape != second.shape) return false;
  constexpr std::uint64_t piece = 1 << 20;
  const std::uint64_t size = first.end - first.begin;
  std::vector<std::byte> one(piece), other(piece);
  for (std::uint64_t done = 0; done < size; done += piece) {
    const auto n = static_cast<std::size_t>(std::min(piece, size - done));
    tensors.read_raw(a, done, std::span(one).first(n));
    tensors.read_raw(b, done, std::span(other).first(n));
    if (!std::equal(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(n), other.begin())) return false;
  }
  return true;
}

// What models must have in common to be parents of one, in words.
std::vector<std::pair<std::string, std::string>> facts_of(const ModelConfig& m) {
  const auto text = [](auto number) { return fmt::format("{}", number); };
  return {{"vocab_size", text(m.vocab_size)},
          {"hidden_size", text(m.hidden_size)},
          {"intermediate_size", text(m.intermediate_size)},
          {"num_hidden_layers", text(m.num_hidden_layers)},
          {"num_attention_heads", text(m.num_attention_heads)},
          {"num_key_value_heads", text(m.num_key_value_heads)},
          {"head_dim", text(m.head_size())},
          {"rms_norm_eps", text(m.rms_norm_eps)},
          {"sliding_window", m.sliding_window ? text(*m.sliding_window) : "none"},
          {"rope_theta", text(m.rope_theta)},
          {"rope_scaling", dump_json(hf_rope_scaling(m))}};
}

}  // namespace

DenseModel::DenseModel(const fs::path& directory)
    : directory_(directory.has_filename() ? directory : directory.parent_path()) {
  if (!fs::is_directory(directory_))
    throw std::runtime_error(fmt::format("{} is not a directory, expected the Hugging Face directory of a dense model",
                                         directory_.string()));
  read_config();
  tensors_.emplace(directory_);
  check_tensors();
  check_tied_head();
}

void DenseModel::read_config() {
  const std::string where = (directory_ / "config.json").string();
  config_ = read_json_file(where);
  Json document = config_;  // with what it leaves to defaults
  const bool mistral = dense_type(JsonReader(document, where)) == "mistral";
  const char* defaults = mistral ? "MistralConfig" : "LlamaConfig";
  refuse_what_has_no_place(JsonReader(document, where));

  std::vector<std::string> absent;
  if (!has_theta(JsonReader(document, where))) {
    document["rope_theta"] = 10000.0;
    absent.emplace_back("rope_theta 10000");
  }
  const JsonReader json(document, where);
  const auto integer = [&](const char* key, std::int64_t otherwise, std::int64_t largest) {
    if (json.has(key)) return json.require_int(key, 1, largest);
    absent.push_back(fmt::format("{} {}", key, otherwise));
    return otherwise;
  };
  ModelConfig& m = shape_;
  m.vocab_size = integer("vocab_size", 32000, std::numeric_limits<std::int32_t>::max());
  m.hidden_size = integer("hidden_size", 4096, 1 << 18);
  m.intermediate_size = integer("intermediate_size", mistral ? 14336 : 11008, 1 << 20);
  m.num_hidden_layers = integer("num_hidden_layers", 32, 1024);
  m.num_attention_heads = integer("num_attention_heads", 32, 1 << 16);
  if (is_set(json, "num_key_value_heads"))
    m.num_key_value_heads = json.require_int("num_key_value_heads", 1, 1 << 16);
  else
    m.num_key_value_heads = mistral && !json.has("num_key_value_heads") ? 8 : m.num_attention_heads;
  m.head_dim = json.optional_int("head_dim", 2, 1 << 16);
  if (m.head_dim && m.hidden_size % m.num_attention_heads == 0 && *m.head_dim == m.hidden_size / m.num_attention_heads)
    m.head_dim.reset();  // the default, spelled out
  m.num_local_experts = m.num_experts_per_tok = 1;
  m.max_position_embeddings = integer("max_position_embeddings", mistral ? 131072 : 2048, 1 << 24);
  m.rms_norm_eps = json.optional_number("rms_norm_eps").value_or(1e-6);
  m.initializer_range = json.optional_number("initializer_range").value_or(0.02);
  if (!(m.rms_norm_eps > 0 && m.rms_norm_eps < 1))
    refuse_dense(json, "rms_norm_eps", fmt::format("{}", m.rms_norm_eps), "a number in (0, 1)");
  if (mistral) {
    m.sliding_window = json.optional_int("sliding_window", 1, 1 << 24);
    if (!json.has("sliding_window")) {
      m.sliding_window = 4096;
      absent.emplace_back("sliding_window 4096");
    }
  }
  tied_ = json.optional_bool("tie_word_embeddings").value_or(false);
  for (const auto& [key, problem] : m.problems())
    throw std::runtime_error(fmt::format("{}: {}: {}", where, key, problem));
  if (!absent.empty())
    warnings_.push_back(
        fmt::format("{}: absent keys have {}'s defaults: {}", where, defaults, fmt::join(absent, ", ")));
  read_hf_rope(json, m, warnings_);
}

std::string DenseModel::source_of(const std::string& name) const {
  if (tied_ && (name == head_name || name == embedding_name))
    return tensors_->contains(embedding_name) ? embedding_name : head_name;
  constexpr std::string_view experts = ".block_sparse_moe.experts.";
  const auto at = name.find(experts);
  if (at == std::string::npos) return name;
  const auto matrix = name.substr(name.size() - std::string_view("w1.weight").size(), 2);
  const char* projection = matrix == "w1" ? "gate_proj" : matrix == "w2" ? "down_proj" : "up_proj";
  return fmt::format("{}.mlp.{}.weight", name.substr(0, at), projection);
}

void DenseModel::check_tensors() {
  std::vector<std::string> problems;
  std::vector<std::string> biases;
  std::set<std::string> used;
  const auto in_file = [&](const std::string& name) {
    return fmt::format("{}: {}", fs::path(tensors_->file_of(name)).filename().string(), name);
  };
  for (const TensorSpec& wanted : tensor_specs(declare_parameters(shape_, Mesh::single()))) {
    if (wanted.name.ends_with(".block_sparse_moe.gate.weight")) continue;
    const std::string name = source_of(wanted.name);
    if (!used.insert(name).second) continue;
    if (!tensors_->contains(name))
      problems.push_back(fmt::format("{}: missing, expected {}", name, dims_text(wanted.shape)));
    else if (const TensorInfo& info = tensors_->info(name); info.shape != wanted.shape)
      problems.push_back(
          fmt::format("{}: found {}, expected {}", in_file(name), dims_text(info.shape), dims_text(wanted.shape)));
    else if (!reads_as_f32(info.type))
      problems.push_back(
          fmt::format("{}: found {}, expected F32, F64, BF16 or F16", in_file(name), name_of(info.type)));
  }
  if (tied_) used.insert(head_name);  // may stand beside the embedding
  for (const std::string& name : tensors_->names()) {
    if (used.contains(name) || is_computed_buffer(name)) continue;
    if (name.ends_with(".bias"))
      biases.push_back(in_file(name));
    else
      problems.push_back(fmt::format("{}: found, but a dense model of this shape has no such tensor", in_file(name)));
  }
  if (!biases.empty())
    throw std::runtime_error(fmt::format("{}: {} tensor(s) are biases, {} the first: a Mixtral has no place for them",
                                         directory_.string(), biases.size(), biases.front()));
  if (problems.empty()) return;
  const std::size_t shown = std::min<std::size_t>(problems.size(), 20);
  std::string message = fmt::format("{}: the weights do not fit the model's shape (config.json):", directory_.string());
  for (std::size_t i = 0; i < shown; ++i) message += "\n  " + problems[i];
  if (shown < problems.size()) message += fmt::format("\n  and {} more", problems.size() - shown);
  throw std::runtime_error(message);
}

// transformers 5 leaves two that differ untied, 4 takes the embedding.
void DenseModel::check_tied_head() {
  if (tied_ && tensors_->contains(embedding_name) && tensors_->contains(head_name) &&
      !same_bytes(*tensors_, embedding_name, head_name))
    throw std::runtime_error(fmt::format(
        "{}: tie_word_embeddings is true in config.json, but {} and {} are there and differ: which head is meant "
        "cannot be known; write false there to keep both, or remove the head",
        directory_.string(), embedding_name, head_name));
}

std::string difference_in_shape(const DenseModel& a, const DenseModel& b) {
  const auto first = facts_of(a.shape()), second = facts_of(b.shape());
  for (std::size_t i = 0; i < first.size(); ++i)
    if (first[i].second != second[i].second)
      return fmt::format("{}: {} has {}, {} has {}", first[i].first, a.directory().string(), first[i].second,
                         b.directory().string(), second[i].second);
  return {};
}

}  // namespace smoe
