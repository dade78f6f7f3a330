#include "model/model_config.h"

#include <fmt/format.h>

namespace smoe {

std::map<std::string, std::string> ModelConfig::problems() const {
  std::map<std::string, std::string> found;
  if (!head_dim && hidden_size % num_attention_heads != 0) {
    found["hidden_size"] = fmt::format(
        "found {}, expected a multiple of num_attention_heads ({}), or an explicit head_dim", hidden_size,
        num_attention_heads);
  } else if (head_size() % 2 != 0) {
    found[head_dim ? "head_dim" : "hidden_size"] =
        fmt::format("found heads of size {}, expected an even size: rotary embedding turns pairs", head_size());
  }
  if (num_attention_heads % num_key_value_heads != 0) {
    found["num_key_value_heads"] = fmt::format("found {}, expected a divisor of num_attention_heads ({})",
                                               num_key_value_heads, num_attention_heads);
  }
  if (num_experts_per_tok > num_local_experts) {
    found["num_experts_per_tok"] = fmt::format("found {}, expected at most num_local_experts ({})",
                                               num_experts_per_tok, num_local_experts);
  }
  return found;
}

ParameterCounts count_parameters(const ModelConfig& c) {
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
