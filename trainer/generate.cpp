#include "trainer/generate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "kernels/philox.h"

namespace smoe {

std::int32_t choose_token(std::span<const float> logits, const GenerateOptions& options, std::int64_t position) {
  const auto best = std::max_element(logits.begin(), logits.end());  // the first of equals
  if (!std::isfinite(*best))
    throw std::runtime_error("the model's logits are not finite; its weights are damaged or its training diverged");
  if (options.greedy || options.temperature == 0) return static_cast<std::int32_t>(best - logits.begin());

  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  std::vector<double> weight(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    weight[i] =
        std::exp((static_cast<double>(logits[static_cast<std::size_t>(order[i])]) - static_cast<double>(*best)) /
                 options.temperature);
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  std::size_t kept = 0;
  double mass = 0;
  while (kept < weight.size() && (kept == 0 || mass < options.top_p * total)) mass += weight[kept++];

  constexpr char stream[] = "generate";
  const auto bits = philox(key_of(options.seed, stream, sizeof stream - 1), static_cast<std::uint64_t>(position));
  double draw = uniform_open(bits[0]) * mass;
  for (std::size_t i = 0; i < kept; ++i) {
    draw -= weight[i];
    if (draw <= 0) return order[i];
  }
  return order[kept - 1];
}

std::vector<std::int32_t> generate(InferenceModel& model, std::span<const std::int32_t> prompt,
                                   const GenerateOptions& options, const std::function<bool(std::int32_t)>& on_token,
                                   KeptSequence* kept) {
  if (prompt.empty())
    throw std::runtime_error("the prompt is empty: give text, ids, or at least the model's first token (bos)");
  check_ids(prompt, model.shape().vocab_size, "the prompt");

  const auto prompt_length = static_cast<std::int64_t>(prompt.size());
  std::optional<KeptSequence> own;  // goes back when the text is done
  if (options.use_cache && !kept) kept = &own.emplace(model);
  if (options.use_cache) kept->reserve(prompt_length + options.max_tokens);
  std::vector<std::int32_t> sequence(prompt.begin(), prompt.end()), made;
  Mixtral::Saved saved;
  std::vector<float> logits;
  const std::size_t drawable =
      static_cast<std::size_t>(options.vocabulary > 0 ? options.vocabulary : model.shape().vocab_size);
  const auto is_stop = [&](std::int32_t id) {
    return std::find(options.stops.begin(), options.stops.end(), id) != options.stops.end();
  };
  for (std::int64_t i = 0; i < options.max_tokens; ++i) {
    if (options.use_cache)
      logits = kept->logits_after(sequence);
    else
      next_logits(model, sequence, nullptr, saved, logits);
    for (std::size_t beyond = drawable; beyond < logits.size(); ++beyond)
      if (!is_stop(static_cast<std::int32_t>(beyond))) logits[beyond] = -std::numeric_limits<float>::infinity();
    const std::int32_t id = choose_token(logits, options, prompt_length + i);
    if (is_stop(id)) break;
    sequence.push_back(id);
    made.push_back(id);
    if (on_token && !on_token(id)) break;
  }
  return made;
}

}  // namespace smoe
