// The shape of a Mixtral model, in Hugging Face's names and with their meaning (MixtralConfig, arXiv 2401.04088).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/routing.h"
#include "model/rope_scaling.h"

namespace smoe {

inline constexpr auto choices(Score) {
  return std::array<std::pair<Score, std::string_view>, 2>{{{Score::softmax, "softmax"}, {Score::sigmoid, "sigmoid"}}};
}

struct ModelConfig {
  std::optional<std::string> from;  // a Hugging Face directory that weights and shape are taken from
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 512;
  std::int64_t intermediate_size = 1792;  // of one expert
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 8;
  std::int64_t num_key_value_heads = 2;
  std::optional<std::int64_t> head_dim;  // absent: hidden_size / num_attention_heads
  std::int64_t num_local_experts = 8;
  std::int64_t num_experts_per_tok = 2;
  std::int64_t max_position_embeddings = 4096;
  // How experts are weighed, in the names of DeepSeek-V3's configuration; Mixtral has none of these keys, and the defaults.
  Score scoring_func = Score::softmax;
  bool norm_topk_prob =
      true;  // a token's weights are its chosen scores over their sum; with one expert that is always 1
  double routed_scaling_factor = 1.0;
  double rope_theta = 1.0e6;
  RopeScaling
      rope_scaling;  // a property of weights that exist: it comes with them, from a config.json, and has no keys
  double rms_norm_eps = 1.0e-5;
  double initializer_range = 0.02;             // standard deviation of the initial weights
  std::optional<std::int64_t> sliding_window;  // query i sees key j where 0 <= i - j < window; absent: all before it
  bool sliding_window_given =
      false;  // the one key that may stand beside `from`, in place of what came with the weights

  RoutingRule routing_rule() const { return {scoring_func, norm_topk_prob, static_cast<float>(routed_scaling_factor)}; }
  bool routes_as_mixtral() const {
    return scoring_func == Score::softmax && norm_topk_prob && routed_scaling_factor == 1;
  }

  std::int64_t head_size() const { return head_dim ? *head_dim : hidden_size / num_attention_heads; }

  // Relations between fields that do not hold: key -> what is wrong. Empty: a model of this shape can be built.
  std::map<std::string, std::string> problems() const {
    using std::to_string;
    std::map<std::string, std::string> found;
    if (!head_dim && hidden_size % num_attention_heads != 0) {
      found["hidden_size"] = "found " + to_string(hidden_size) + ", expected a multiple of num_attention_heads (" +
                             to_string(num_attention_heads) + "), or an explicit head_dim";
    } else if (head_size() % 2 != 0) {
      found[head_dim ? "head_dim" : "hidden_size"] =
          "found heads of size " + to_string(head_size()) + ", expected an even size: rotary embedding turns pairs";
    }
    if (num_attention_heads % num_key_value_heads != 0) {
      found["num_key_value_heads"] = "found " + to_string(num_key_value_heads) +
                                     ", expected a divisor of num_attention_heads (" + to_string(num_attention_heads) +
                                     ")";
    }
    if (num_experts_per_tok > num_local_experts) {
      found["num_experts_per_tok"] = "found " + to_string(num_experts_per_tok) +
                                     ", expected at most num_local_experts (" + to_string(num_local_experts) + ")";
    }
    return found;
  }

  bool operator==(const ModelConfig&) const = default;

  // The one list of fields: parsing, printing, comparing and suggestions follow it. Bounds are in interval notation;
  // the upper ones keep every parameter count inside 63 bits.
  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.path("from", self.from);
    visit.integer("vocab_size", self.vocab_size, "[1, 2147483647]");
    visit.integer("hidden_size", self.hidden_size, "[1, 262144]");
    visit.integer("intermediate_size", self.intermediate_size, "[1, 1048576]");
    visit.integer("num_hidden_layers", self.num_hidden_layers, "[1, 1024]");
    visit.integer("num_attention_heads", self.num_attention_heads, "[1, 65536]");
    visit.integer("num_key_value_heads", self.num_key_value_heads, "[1, 65536]");
    visit.integer("head_dim", self.head_dim, "[2, 65536]");
    visit.integer("num_local_experts", self.num_local_experts, "[1, 4096]");
    visit.integer("num_experts_per_tok", self.num_experts_per_tok, "[1, 4096]");
    visit.choice("scoring_func", self.scoring_func);
    visit.flag("norm_topk_prob", self.norm_topk_prob);
    visit.number("routed_scaling_factor", self.routed_scaling_factor, "(0, inf)");
    visit.integer("max_position_embeddings", self.max_position_embeddings, "[1, 16777216]");
    visit.number("rope_theta", self.rope_theta, "(0, inf)");
    visit.number("rms_norm_eps", self.rms_norm_eps, "(0, 1)");
    visit.number("initializer_range", self.initializer_range, "[0, inf)");
    visit.integer("sliding_window", self.sliding_window, "[1, 16777216]");
  }
};

// Exact counts of weights. active: what one token passes through, with num_experts_per_tok of the experts.
struct ParameterCounts {
  std::int64_t total = 0;
  std::int64_t active = 0;
  std::int64_t embedding = 0;  // input embedding and LM head, which are not tied
  std::int64_t attention = 0;
  std::int64_t experts = 0;
  std::int64_t routers = 0;
  std::int64_t norms = 0;
};

inline ParameterCounts count_parameters(const ModelConfig& c) {
  const std::int64_t query_rows = c.num_attention_heads * c.head_size();
  const std::int64_t key_value_rows = c.num_key_value_heads * c.head_size();
  const std::int64_t one_expert = 3 * c.hidden_size * c.intermediate_size;  // w1, w2, w3

  ParameterCounts counts;
  counts.embedding = 2 * c.vocab_size * c.hidden_size;
  counts.attention = c.num_hidden_layers * c.hidden_size * 2 * (query_rows + key_value_rows);  // q, o and k, v
  counts.experts = c.num_hidden_layers * c.num_local_experts * one_expert;
  counts.routers = c.num_hidden_layers * c.num_local_experts * c.hidden_size;
  counts.norms = (2 * c.num_hidden_layers + 1) * c.hidden_size;
  counts.total = counts.embedding + counts.attention + counts.experts + counts.routers + counts.norms;
  counts.active = counts.total - c.num_hidden_layers * (c.num_local_experts - c.num_experts_per_tok) * one_expert;
  return counts;
}

}  // namespace smoe
