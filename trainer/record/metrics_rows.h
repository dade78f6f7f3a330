// What the writer and the reader of metrics.jsonl share: the keys of a row, and the lines of a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "trainer/record/metrics.h"

namespace smoe {

constexpr std::uint64_t max_metrics_bytes = 16ull << 30;  // guards against reading what is no metrics file

// Calls visit(group, key, member) for every floating-point member of a row, in the file's order: the one list of keys, which
// metrics.jsonl, its reader, TensorBoard (tag group/key) and the report's data follow. docs/formats.md explains each.
template <class Row, class Visitor>
void visit_numbers(Row& row, Visitor&& visit) {
  if constexpr (requires { row.source; }) {
    visit("eval", "loss", row.loss);
    visit("eval", "perplexity", row.perplexity);
    visit("eval", "aux_loss", row.aux_loss);
    visit("eval", "max_vio", row.max_vio);
  } else {
    visit("train", "lm_loss", row.lm_loss);
    visit("balance", "aux_loss", row.aux_loss);
    visit("balance", "z_loss", row.z_loss);
    visit("train", "loss", row.loss);
    visit("train", "grad_norm", row.grad_norm);
    visit("train", "learning_rate", row.learning_rate);
    visit("throughput", "tokens_per_sec", row.tokens_per_sec);
    visit("throughput", "mfu", row.mfu);
    visit("throughput", "share_of_product", row.share_of_product);
    visit("throughput", "step_seconds", row.step_seconds);
    visit("balance", "max_vio", row.max_vio);
    visit("throughput", "model_gflops", row.model_gflops);
  }
}

// Calls visit(object, key, member) for every list by layer, those of an object one behind the other. In the file it is
// "object":{"key":[...]}, or, where object is "", "key":[...]; TensorBoard's tags and the keys of the report, which shows means
// over the layers, are of path_of().
template <class Layers, class Visitor>
void visit_layers(Layers& layers, Visitor&& visit) {
  visit("balance", "sequence", layers.balance_sequence);
  visit("balance", "micro_batch", layers.balance_micro_batch);
  visit("balance", "global_batch", layers.balance_global_batch);
  visit("", "max_vio_by_layer", layers.max_vio);
  visit("", "max_vio_interval", layers.max_vio_interval);
  visit("", "changed_assignments", layers.changed);
  visit("", "dropped_assignments", layers.dropped);
  visit("", "rank_load", layers.rank_load);
  visit("", "router_mean_entropy", layers.mean_entropy);
  visit("", "router_entropy", layers.entropy);
  visit("", "router_logit_norm", layers.logit_norm);
  visit("", "router_margin", layers.margin);
  visit("router_gradient", "lm", layers.gradient_lm);
  visit("router_gradient", "balance", layers.gradient_balance);
  visit("router_gradient", "z", layers.gradient_z);
  visit("router_gradient_cosine", "lm_balance", layers.cosine_lm_balance);
  visit("router_gradient_cosine", "lm_z", layers.cosine_lm_z);
  visit("router_gradient_cosine", "balance_z", layers.cosine_balance_z);
}
inline std::string path_of(std::string_view object, std::string_view key) {
  return std::string(object) + (object.empty() ? "" : "/") + std::string(key);
}

// The lines of `content` whose step is at most `step`, as they stand; an unfinished last line is left out. `file`
// names the content in errors.
std::string keep_rows_to(std::int64_t step, std::string_view content, const std::filesystem::path& file);

}  // namespace smoe
