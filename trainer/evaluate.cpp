#include "trainer/evaluate.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace smoe {

EvalMetrics evaluate(Mixtral& model, Context context, const Dataset& dataset, const EvaluateOptions& options, std::int64_t step) {
  const std::int64_t length = dataset.sequence_length();
  const std::int64_t samples =
      options.batches ? std::min(dataset.samples(), options.batches * options.sequences) : dataset.samples();
  std::vector<std::int32_t> ids, targets, document_start;
  RouterConfig measured;
  measured.aux_loss_coef = 0;  // the balance is measured, nothing is trained
  BalanceLoss balance(model.config(), measured);
  balance.begin_step((samples + options.sequences - 1) / options.sequences);
  std::vector<RouterGradient> unused;
  Mixtral::Saved saved;
  double loss = 0;
  std::int64_t tokens = 0;
  for (std::int64_t first = 0; first < samples; first += options.sequences) {
    const std::int64_t sequences = std::min(options.sequences, samples - first);
    for (auto* column : {&ids, &targets, &document_start}) column->resize(static_cast<std::size_t>(sequences * length));
    for (std::int64_t s = 0; s < sequences; ++s) {
      const auto row = [&](std::vector<std::int32_t>& column) {
        return std::span(column).subspan(static_cast<std::size_t>(s * length), static_cast<std::size_t>(length));
      };
      dataset.read(first + s, row(ids), row(targets), row(document_start));
    }
    context.activations.rewind({});
    context.scratch.rewind({});
    const TokenBatch batch = make_token_batch(context.backend, context.activations, sequences, length, ids, targets, document_start);
    saved.statistics = balance.take_statistics(context.activations, sequences);
    // Nothing is kept for a backward, so each layer's activations make room for the next one's.
    model.forward(context, batch, Recompute::layer, nullptr, saved);
    loss += model.loss(context, batch, saved);
    balance.micro_batch(context, saved.statistics, length, context.activations, unused);
    tokens += std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t >= 0; });
    if (options.on_progress) options.on_progress(first + sequences, samples);
  }
  EvalMetrics metrics;
  metrics.step = step;
  metrics.source = options.name;
  metrics.tokens = tokens;
  metrics.loss = tokens ? loss / static_cast<double>(tokens) : 0.0;
  metrics.perplexity = std::exp(metrics.loss);
  metrics.aux_loss = balance.values().trained(AuxLossScope::micro_batch);
  metrics.max_vio = max_violation(balance.values().load);
  return metrics;
}

}  // namespace smoe
