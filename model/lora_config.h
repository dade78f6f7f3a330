// Low-rank adapters (LoRA, arXiv 2106.09685): a weight W [out,in] that stays as it is, and beside it the trained product of
// B [out,r] and A [r,in],  y = x W^T + scale * dropout(x) A^T B^T. In PEFT's names and with their meaning; a target stands for
// that matrix of every expert.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/router_config.h"

namespace smoe {

// What an adapter can be beside, in the order of forward.
inline constexpr std::array<std::string_view, 8> lora_targets = {"q_proj", "k_proj", "v_proj", "o_proj",
                                                                 "gate",   "w1",     "w2",     "w3"};

struct LoraConfig {
  std::int64_t r = 16;
  double alpha = 32;
  double dropout = 0;   // of the adapters' input, in training
  bool rslora = false;  // scale alpha / sqrt(r) (arXiv 2312.03732) in place of alpha / r
  std::vector<std::string> target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"};
  std::vector<std::int64_t> layers{};  // the first and the last that have adapters; empty: all
  std::optional<std::string> from{};   // a PEFT directory whose adapters training goes on from

  double scale() const { return alpha / (rslora ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r)); }
  bool targets(std::int64_t layer, std::string_view module) const {
    if (layers.size() == 2 && (layer < layers[0] || layer > layers[1])) return false;
    return std::find(target_modules.begin(), target_modules.end(), module) != target_modules.end();
  }

  // Relations between fields that do not hold: key -> what is wrong.
  std::map<std::string, std::string> problems(std::int64_t num_hidden_layers) const {
    std::map<std::string, std::string> found;
    const auto list = [](const auto& names) {
      std::string text;
      for (const auto& name : names) text += (text.empty() ? "" : ", ") + std::string(name);
      return text;
    };
    if (target_modules.empty()) found["target_modules"] = "found none, expected some of " + list(lora_targets);
    for (const std::string& name : target_modules)
      if (std::find(lora_targets.begin(), lora_targets.end(), name) == lora_targets.end()) {
        const bool llama = name == "gate_proj" || name == "up_proj" || name == "down_proj";
        found["target_modules"] = "found " + name + ", which matches nothing, expected some of " + list(lora_targets) +
                                  (llama ? " (an expert's gate_proj, down_proj and up_proj are w1, w2 and w3)" : "");
      } else if (std::count(target_modules.begin(), target_modules.end(), name) > 1) {
        found["target_modules"] = "found " + name + " twice";
      }
    if (!layers.empty() &&
        (layers.size() != 2 || layers[0] < 0 || layers[1] < layers[0] || layers[1] >= num_hidden_layers))
      found["layers"] = "expected [first, last], in 0 .. " + std::to_string(num_hidden_layers - 1);
    return found;
  }

  bool operator==(const LoraConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("r", self.r, "[1, 65536]");
    visit.number("alpha", self.alpha, "(0, inf)");
    visit.number("dropout", self.dropout, "[0, 1)");
    visit.flag("rslora", self.rslora);
    visit.texts("target_modules", self.target_modules);
    visit.integers("layers", self.layers, "[0, 100000]");
    visit.path("from", self.from);
  }
};

// As functions take it that adapters may be left out of.
inline const LoraConfig* pointer_to(const std::optional<LoraConfig>& lora) { return lora ? &*lora : nullptr; }

// Whether any router's weights, or an adapter beside them, are trained: with adapters, nothing else is.
inline bool routers_are_trained(const RouterConfig& router, const std::optional<LoraConfig>& lora) {
  if (!lora) return !router.frozen;
  return std::find(lora->target_modules.begin(), lora->target_modules.end(), "gate") != lora->target_modules.end();
}

// One linear layer's place in a model, of which its adapters are made. No config: it has none.
struct AdapterSite {
  enum class Input : std::uint32_t { attention, heads, router, experts, activations };  // of a decoder layer

  const LoraConfig* config = nullptr;
  int layer = 0;
  Input input = Input::attention;

  std::uint32_t stream() const { return static_cast<std::uint32_t>(layer) * 8 + static_cast<std::uint32_t>(input); }
};

}  // namespace smoe
