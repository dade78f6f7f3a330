#include "configs/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "configs/field_text.h"
#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

// Names of transformers, TRL, Megatron-LM, nanotron, torchtitan, litgpt and llm.c.
const std::map<std::string_view, std::string_view>& foreign_names() {
  static const std::map<std::string_view, std::string_view> names = {
      {"activation_checkpointing", "train.recompute"},
      {"adam_beta1", "optimizer.beta1"},
      {"adam_beta2", "optimizer.beta2"},
      {"adam_eps", "optimizer.epsilon"},
      {"adam_epsilon", "optimizer.epsilon"},
      {"aux_loss_alpha", "router.aux_loss_coef"},
      {"batch_size", "train.global_batch_size"},
      {"bf16", "train.precision"},
      {"block_size", "data.sequence_length"},
      {"clip_grad", "optimizer.max_grad_norm"},
      {"context_length", "data.sequence_length"},
      {"d_ff", "model.intermediate_size"},
      {"d_model", "model.hidden_size"},
      {"data", "data.train"},
      {"data_path", "data.train"},
      {"dataset", "data.train"},
      {"dim", "model.hidden_size"},
      {"dtype", "train.precision"},
      {"embed_dim", "model.hidden_size"},
      {"eps", "optimizer.epsilon"},
      {"eval_interval", "eval.interval"},
      {"eval_iters", "eval.batches"},
      {"eval_steps", "eval.interval"},
      {"expert_model_parallel_size", "parallel.ep"},
      {"expert_parallel_size", "parallel.ep"},
      {"ffn_hidden_size", "model.intermediate_size"},
      {"fp16", "train.precision"},
      {"grad_clip", "optimizer.max_grad_norm"},
      {"gradient_accumulation_steps", "train.global_batch_size"},
      {"gradient_checkpointing", "train.recompute"},
      {"gradient_clip_val", "optimizer.max_grad_norm"},
      {"gradient_clipping", "optimizer.max_grad_norm"},
      {"hidden_dim", "model.intermediate_size"},
      {"init_method_std", "model.initializer_range"},
      {"init_std", "model.initializer_range"},
      {"log_interval", "log.interval"},
      {"logging_steps", "log.interval"},
      {"layers", "model.num_hidden_layers"},
      {"lora_alpha", "lora.alpha"},
      {"lora_dropout", "lora.dropout"},
      {"lora_r", "lora.r"},
      {"lora_rank", "lora.r"},
      {"lora_target_modules", "lora.target_modules"},
      {"lr", "optimizer.learning_rate"},
      {"lr_decay_style", "schedule.type"},
      {"lr_scheduler", "schedule.type"},
      {"lr_scheduler_type", "schedule.type"},
      {"lr_warmup_iters", "schedule.warmup_steps"},
      {"max_iters", "train.steps"},
      {"max_lr", "optimizer.learning_rate"},
      {"max_norm", "optimizer.max_grad_norm"},
      {"max_seq_len", "data.sequence_length"},
      {"max_seq_length", "data.sequence_length"},
      {"max_steps", "train.steps"},
      {"min_lr", "schedule.min_lr_ratio"},
      {"model", "model.from"},
      {"model_name_or_path", "model.from"},
      {"moe_aux_loss_coeff", "router.aux_loss_coef"},
      {"moe_router_topk", "model.num_experts_per_tok"},
      {"moe_z_loss_coeff", "router.z_loss_coef"},
      {"n_embd", "model.hidden_size"},
      {"n_experts", "model.num_local_experts"},
      {"n_head", "model.num_attention_heads"},
      {"n_heads", "model.num_attention_heads"},
      {"n_kv_heads", "model.num_key_value_heads"},
      {"n_layer", "model.num_hidden_layers"},
      {"n_layers", "model.num_hidden_layers"},
      {"n_routed_experts", "model.num_local_experts"},
      {"norm_eps", "model.rms_norm_eps"},
      {"num_experts", "model.num_local_experts"},
      {"num_experts_per_token", "model.num_experts_per_tok"},
      {"num_heads", "model.num_attention_heads"},
      {"num_layers", "model.num_hidden_layers"},
      {"num_query_groups", "model.num_key_value_heads"},
      {"num_train_epochs", "train.epochs"},
      {"num_train_steps", "train.steps"},
      {"num_warmup_steps", "schedule.warmup_steps"},
      {"per_device_train_batch_size", "train.micro_batch_size"},
      {"pretrained", "model.from"},
      {"random_seed", "train.seed"},
      {"resume_from_checkpoint", "checkpoint.resume"},
      {"rotary_base", "model.rope_theta"},
      {"router_aux_loss_coef", "router.aux_loss_coef"},
      {"router_z_loss_coef", "router.z_loss_coef"},
      {"save_dir", "train.output_dir"},
      {"save_interval", "checkpoint.interval"},
      {"save_steps", "checkpoint.interval"},
      {"save_total_limit", "checkpoint.keep"},
      {"scheduler", "schedule.type"},
      {"seq_len", "data.sequence_length"},
      {"seq_length", "data.sequence_length"},
      {"tensor_model_parallel_size", "parallel.tp"},
      {"tensor_parallel_size", "parallel.tp"},
      {"theta", "model.rope_theta"},
      {"top_k", "model.num_experts_per_tok"},
      {"total_steps", "train.steps"},
      {"train_batch_size", "train.global_batch_size"},
      {"train_iters", "train.steps"},
      {"warmup", "schedule.warmup_steps"},
      {"warmup_iters", "schedule.warmup_steps"},
      {"warmup_ratio", "schedule.warmup_steps"},
      {"wd", "optimizer.weight_decay"},
      {"window_size", "model.sliding_window"},
      {"z_loss_weight", "router.z_loss_coef"},
  };
  return names;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // cost[i][j]: distance between the first i letters of a and the first j of b.
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({replaced, cost[i - 1][j] + 1, cost[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates) {
  const std::size_t near = std::max<std::size_t>(1, word.size() / 3);
  std::optional<std::string> best;
  std::size_t best_distance = near + 1;
  for (const std::string& candidate : candidates) {
    // Lengths further apart than this cannot be near; it also bounds the work on hostile keys.
    if (candidate.size() > word.size() + near || word.size() > candidate.size() + near) continue;
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::optional<std::string> foreign_name(std::string_view name) {
  const auto found = foreign_names().find(lower_case(name));
  if (found == foreign_names().end()) return std::nullopt;
  return std::string(found->second);
}

std::vector<std::string> all_foreign_targets() {
  std::vector<std::string> targets;
  for (const auto& [name, ours] : foreign_names()) targets.emplace_back(ours);
  return targets;
}

std::string did_you_mean_key(std::string_view name, const std::vector<std::string>& siblings,
                             const std::vector<std::string>& valid) {
  if (const auto ours = foreign_name(name)) return did_you_mean(ours);

  std::vector<std::string> names;
  for (const std::string& sibling : siblings) names.emplace_back(last_part(sibling));
  if (const auto near = nearest(lower_case(name), names)) {
    return did_you_mean(
        siblings[static_cast<std::size_t>(std::find(names.begin(), names.end(), *near) - names.begin())]);
  }

  std::vector<std::string> elsewhere;
  for (const std::string& key : valid) {
    if (last_part(key) == name) elsewhere.push_back(fmt::format("'{}'", key));
  }
  return elsewhere.empty() ? "" : fmt::format("; did you mean {}?", joined(elsewhere, " or "));
}

std::string did_you_mean_dotted(std::string_view dotted, const std::vector<std::string>& valid) {
  if (const auto ours = foreign_name(last_part(dotted))) return did_you_mean(ours);
  if (const auto near = nearest(lower_case(dotted), valid)) return did_you_mean(near);
  return did_you_mean_key(last_part(dotted), {}, valid);
}

std::string did_you_mean(const std::optional<std::string>& suggestion) {
  return suggestion ? fmt::format("; did you mean '{}'?", *suggestion) : "";
}

std::string_view last_part(std::string_view dotted) {
  const std::size_t dot = dotted.rfind('.');
  return dot == std::string_view::npos ? dotted : dotted.substr(dot + 1);
}

}  // namespace smoe
