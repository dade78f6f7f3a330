// What the writer and the reader of metrics.jsonl share: the keys of a row, and the lines of a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "trainer/record/metrics.h"

namespace smoe {

constexpr std::uint64_t max_metrics_bytes = 16ull << 30;  // guards against reading what is no metrics file

// Calls visit(key, member) for every floating-point member of a row, in the file's order: the one list of keys.
template <class Row, class Visitor>
void visit_numbers(Row& row, Visitor&& visit) {
  if constexpr (requires { row.source; }) {
    visit("loss", row.loss);
    visit("perplexity", row.perplexity);
    visit("aux_loss", row.aux_loss);
    visit("max_vio", row.max_vio);
  } else {
    visit("lm_loss", row.lm_loss);
    visit("aux_loss", row.aux_loss);
    visit("z_loss", row.z_loss);
    visit("loss", row.loss);
    visit("grad_norm", row.grad_norm);
    visit("learning_rate", row.learning_rate);
    visit("tokens_per_sec", row.tokens_per_sec);
    visit("mfu", row.mfu);
    visit("share_of_product", row.share_of_product);
    visit("step_seconds", row.step_seconds);
    visit("max_vio", row.max_vio);
    visit("model_gflops", row.model_gflops);
  }
}

// The lines of `content` whose step is at most `step`, as they stand; an unfinished last line is left out. `file`
// names the content in errors.
std::string keep_rows_to(std::int64_t step, std::string_view content, const std::filesystem::path& file);

}  // namespace smoe
