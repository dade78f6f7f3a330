#include "trainer/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/device_sums.h"
#include "trainer/sample_columns.h"

namespace smoe {

EvalMetrics evaluate(Mixtral& model, Context context, const Dataset& dataset, const EvaluateOptions& options,
                     std::int64_t step) {
  const std::int64_t samples =
      options.batches ? std::min(dataset.samples(), options.batches * options.sequences) : dataset.samples();
  const std::int64_t tail = options.batches ? 0 : dataset.tail();
  Communicator& dp = context.mesh.group(Axis::dp);
  const std::int64_t at_once = options.sequences * dp.size(), all = samples + (tail > 0);
  double tokens = 0;
  for (std::int64_t s = 0; s < all; ++s) tokens += static_cast<double>(dataset.used(s));
  SampleColumns columns;
  RouterConfig measured;
  measured.aux_loss_coef = 0;  // the balance is measured, nothing is trained
  BalanceLoss balance(model.config(), measured);
  balance.begin_step({.tokens = tokens, .sequences = static_cast<double>(all)});
  std::vector<RouterGradient> unused;
  Mixtral::Saved saved;
  DeviceSums losses(context.backend);
  losses.reset(1);
  double counted = 0;  // targets
  // Samples [done, done + count) of all ranks. Those for which nothing is left still take part: the experts they hold may
  // be wanted by others.
  const auto measure = [&](std::int64_t done, std::int64_t count, std::int64_t length) {
    const auto [before, sequences] = share_of_rank(count, options.sequences, dp.rank());
    columns.read(dataset, done + before, sequences, length);
    context.activations.rewind({});
    context.scratch.rewind({});
    TokenBatch batch = columns.batch(context.backend, context.activations);
    batch.dropless = true;
    saved.statistics = balance.take_statistics(context, batch);
    model.forward(context, batch, Keep::nothing, saved);
    model.loss(context, batch, saved, losses[0]);
    balance.add_micro_batch(context, saved.statistics, unused);
    counted += static_cast<double>(
        std::count_if(columns.targets.begin(), columns.targets.end(), [](std::int32_t t) { return t >= 0; }));
    if (options.on_progress) options.on_progress(done + count, all);
  };
  for (std::int64_t done = 0; done < samples; done += at_once)
    measure(done, std::min(at_once, samples - done), dataset.sequence_length());
  if (tail > 0) measure(samples, 1, tail);
  std::array<double, 2> sums{losses.read()[0], counted};
  dp.all_reduce(sums, Reduce::sum, "evaluate.loss");
  EvalMetrics metrics;
  metrics.step = step;
  metrics.source = options.name;
  metrics.tokens = static_cast<std::int64_t>(sums[1]);
  metrics.loss = metrics.tokens ? sums[0] / sums[1] : not_measured;
  metrics.perplexity = std::exp(metrics.loss);
  metrics.aux_loss = balance.values().trained(AuxLossScope::micro_batch);
  metrics.max_vio = max_violation(balance.values().load);
  return metrics;
}

}  // namespace smoe
