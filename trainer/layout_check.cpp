#include "trainer/layout_check.h"

#include <fmt/format.h>

#include <stdexcept>

namespace smoe {

std::vector<std::string> layout_problems(const ModelConfig& model, const BatchShape& batch, const Layout& layout) {
  std::vector<std::string> problems;
  const auto divides = [&](const char* key, std::int64_t value, const char* axis, int ranks) {
    if (value % ranks != 0)
      problems.push_back(fmt::format("{} is {}, which {} = {} does not divide", key, value, axis, ranks));
  };
  divides("the number of ranks", layout.ranks, "parallel.tp", layout.tp);
  divides("the number of ranks", layout.ranks, "parallel.ep", layout.ep);
  if (!problems.empty()) return problems;
  divides("model.num_attention_heads", model.num_attention_heads, "parallel.tp", layout.tp);
  divides("model.num_key_value_heads", model.num_key_value_heads, "parallel.tp", layout.tp);  // they are not replicated
  divides("data.sequence_length", batch.sequence_length, "parallel.tp", layout.tp);
  divides("model.num_local_experts", model.num_local_experts, "parallel.ep", layout.ep);
  if (model.vocab_size < layout.tp)
    problems.push_back(
        fmt::format("model.vocab_size is {}, expected at least one row for each of parallel.tp = {} ranks",
                    model.vocab_size, layout.tp));
  if (const std::int64_t at_once = batch.micro_batch_size * layout.dp(); batch.global_batch_size % at_once != 0)
    problems.push_back(fmt::format(
        "train.global_batch_size is {}, expected a multiple of {}: train.micro_batch_size ({}) times dp ({} ranks / tp {})",
        batch.global_batch_size, at_once, batch.micro_batch_size, layout.ranks, layout.tp));
  return problems;
}

void require_layout(const ModelConfig& model, const BatchShape& batch, const Layout& layout) {
  const auto problems = layout_problems(model, batch, layout);
  if (problems.empty()) return;
  std::string message =
      fmt::format("{} rank(s) with parallel.tp={} parallel.ep={} do not fit:", layout.ranks, layout.tp, layout.ep);
  for (const auto& problem : problems) message += "\n  " + problem;
  std::string fitting;
  for (const Layout& other : layouts_of(layout.ranks))
    if (layout_problems(model, batch, other).empty())
      fitting += fmt::format("\n  parallel.tp={} parallel.ep={}  ({})", other.tp, other.ep, other.to_string());
  message +=
      fitting.empty()
          ? fmt::format(
                "\nno layout of {} ranks fits: change the number of ranks, or the batch (train.global_batch_size, "
                "train.micro_batch_size)",
                layout.ranks)
          : fmt::format("\nlayouts of {} rank(s) that fit:", layout.ranks) + fitting;
  throw std::runtime_error(message);
}

}  // namespace smoe
