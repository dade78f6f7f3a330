// adapter_config.json of PEFT (https://github.com/huggingface/peft, 0.13 to 0.21), in and out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/lora_config.h"
#include "model/model_config.h"

namespace smoe {

inline constexpr char kAdapterConfigFile[] = "adapter_config.json";

// Values by how a path ends: by all of it, or by what stands behind one of its dots.
template <class Value>
class ByEnd {
 public:
  void add(const std::string& end, Value value) { values_.emplace(end, std::move(value)); }
  // Every one that the path ends by, the longest end first.
  template <class Visit>
  void for_each(std::string_view path, Visit&& visit) const {
    for (;;) {
      if (const auto found = values_.find(std::string(path)); found != values_.end()) visit(found->second);
      const auto dot = path.find('.');
      if (dot == std::string_view::npos) return;
      path.remove_prefix(dot + 1);
    }
  }
  // The first of these; null: none.
  const Value* find(std::string_view path) const {
    const Value* first = nullptr;
    for_each(path, [&](const Value& value) { first = first ? first : &value; });
    return first;
  }

 private:
  std::unordered_map<std::string, Value> values_;
};

// What the file says, in its own terms. Paths are of modules: model.layers.0.self_attn.q_proj.
struct AdapterSettings {
  std::int64_t r = 0;
  double alpha = 0, dropout = 0;
  bool rslora = false;
  std::string base, version;  // may be empty
  bool names_modules = true;  // false: by a regular expression, or "all-linear"; then the tensors alone say which
  std::vector<std::string> modules;     // ends of paths
  std::vector<std::string> parameters;  // the same of tensors: mlp.experts.gate_up_proj
  bool excludes = false;                // what `modules` names need not be there
  std::vector<std::int64_t> layers;     // of `modules`; empty: all
  ByEnd<double> ranks, alphas;          // in place of r and alpha
  std::vector<std::string> warnings;

  std::int64_t rank_of(std::string_view path) const {
    const double* of_path = ranks.find(path);
    return of_path ? static_cast<std::int64_t>(*of_path) : r;
  }
  double alpha_of(std::string_view path) const {
    const double* of_path = alphas.find(path);
    return of_path ? *of_path : alpha;
  }
};

// Throws std::runtime_error with the file and the key where it is malformed, or asks for what is computed otherwise here: another
// method than LoRA, a variant of it, biases, modules that are trained whole, an initialisation that changed the base's weights.
AdapterSettings read_adapter_settings(const std::filesystem::path& directory);

// What PEFT 0.13 and later read beside adapter_model.safetensors of one A and one B an expert. base: base_model_name_or_path, may
// be empty. Two things are said otherwise than lora has them, for PEFT on transformers 5, where experts are fused:
// dropout is 0 if it is of experts or routers (it refuses to load any other), and rsLoRA of w1 and w3 is written as the alpha
// that gives the same scale (it doubles r and alpha of the two, which leaves alpha / r alone, but not alpha / sqrt(r)).
void write_peft_config(const std::filesystem::path& directory, const LoraConfig& lora, const std::string& base,
                       const ModelConfig& model);

}  // namespace smoe
