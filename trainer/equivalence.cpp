#include "trainer/equivalence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "data/shards/batch.h"
#include "kernels/host_view.h"
#include "kernels/philox.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "parallel/comm/agreement.h"
#include "trainer/layer_metrics.h"
#include "trainer/objective.h"
#include "trainer/record/metrics_rows.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

// Token ids, targets and documents of one step's global batch: a pure function of (seed, step, position).
struct GlobalBatch {
  std::vector<std::int32_t> ids, targets, document_start;
};

GlobalBatch make_batch(const EquivalenceCase& what, std::int64_t step) {
  const std::int64_t length = what.sequence_length, sequences = what.at_once * what.accumulation;
  const auto draw = [&](std::int64_t i) {
    return philox(what.seed, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(step));
  };
  GlobalBatch batch;
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::int32_t start = 0;
    for (std::int64_t t = 0; t < length; ++t) {
      const auto bits = draw(s * length + t);
      if (what.documents && t > 0 && bits[0] % 5 == 0) start = static_cast<std::int32_t>(t);
      batch.ids.push_back(static_cast<std::int32_t>(bits[1] % static_cast<std::uint64_t>(what.model.vocab_size)));
      const bool without = what.masked_unevenly && s % 3 == 1;
      const bool masked = without || (!(what.masked_unevenly && s % 3 == 2) && uniform_open(bits[2]) < what.masked);
      batch.targets.push_back(
          masked ? masked_target
                 : static_cast<std::int32_t>(bits[3] % static_cast<std::uint64_t>(what.model.vocab_size)));
      batch.document_start.push_back(start);
    }
  }
  return batch;
}

// The sequences of one dp rank, as the loader cuts a global batch (data/shards/loader.h).
GlobalBatch part_of(const GlobalBatch& whole, const EquivalenceCase& what, std::int64_t rank, std::int64_t ranks) {
  const std::int64_t micro = what.at_once / ranks, length = what.sequence_length;
  GlobalBatch part;
  for (std::int64_t m = 0; m < what.accumulation; ++m) {
    const auto first = (m * what.at_once + rank * micro) * length, last = first + micro * length;
    const auto append = [&](std::vector<std::int32_t>& to, const std::vector<std::int32_t>& from) {
      to.insert(to.end(), from.begin() + first, from.begin() + last);
    };
    append(part.ids, whole.ids);
    append(part.targets, whole.targets);
    append(part.document_start, whole.document_start);
  }
  return part;
}

// What is not finite, on either side, is infinitely far. (An expected infinity would otherwise divide every difference by
// itself.)
double absolute(double found, double expected) {
  const double difference = std::abs(found - expected);
  return std::isfinite(difference) ? difference : INFINITY;
}
double relative(double found, double expected) {
  const double difference = absolute(found, expected);
  if (difference == 0 || !std::isfinite(difference)) return difference;
  return difference / std::max(std::abs(expected), 1e-30);
}

// Largest difference of a slice, over the largest entry of the whole tensor.
double deviation(const std::vector<float>& slice, const CaseRun::Slice& place, const std::vector<float>& whole) {
  double largest = 0, worst = 0;
  for (const float x : whole) largest = std::max(largest, std::abs(static_cast<double>(x)));
  for (std::size_t i = 0; i < slice.size(); ++i) {
    const auto at =
        static_cast<std::size_t>(global_index(place.shape, place.slice, place.first, static_cast<std::int64_t>(i)));
    const double difference = std::abs(static_cast<double>(slice[i]) - static_cast<double>(whole[at]));
    if (!std::isfinite(difference)) return INFINITY;
    worst = std::max(worst, difference);
  }
  return worst == 0 ? 0 : worst / std::max(largest, 1e-30);
}

// Of two whole tensors of one shape, over the largest entry of the second.
double largest_difference(const std::vector<float>& found, const std::vector<float>& expected) {
  const auto count = static_cast<std::int64_t>(found.size());
  return deviation(found, {.name = {}, .shape = Shape{count}, .slice = Shape{count}}, expected);
}

void keep_worse(Deviations::Worst& worst, double value, std::int64_t step, const std::string& tensor = {}) {
  if (value > worst.value) worst = {value, tensor, step};
}

// Those of what is computed at once are compared where both runs compute as much at once.
void compare_measures(Deviations::Worst& worst, const LayerMetrics& found, const LayerMetrics& expected,
                      bool same_at_once, std::int64_t step) {
  std::vector<const std::vector<double>*> others;
  visit_layers(expected,
               [&](const char*, const char*, const std::vector<double>& values) { others.push_back(&values); });
  std::size_t i = 0;
  visit_layers(found, [&](const char* object, const char* key, const std::vector<double>& values) {
    const std::vector<double>& other = *others[i++];
    if (&values == &found.rank_load) return;  // the one that depends on the layout
    if (!same_at_once && (&values == &found.balance_micro_batch || &values == &found.balance_global_batch)) return;
    const bool cosine = std::string_view(object) == "router_gradient_cosine";  // near 0 its own size says nothing
    for (std::size_t l = 0; l < values.size(); ++l)
      keep_worse(worst, cosine ? absolute(values[l], other.at(l)) : relative(values[l], other.at(l)), step,
                 fmt::format("{} of layer {}", path_of(object, key), l));
  });
}

// The worst of all ranks, with its name, on every rank.
void share(Deviations::Worst& worst, Communicator& world) {
  std::vector<double> all(static_cast<std::size_t>(world.size()));
  all[static_cast<std::size_t>(world.rank())] = worst.value;
  world.all_reduce(std::span(all), Reduce::sum, "equivalence.worst");
  const int from = static_cast<int>(std::max_element(all.begin(), all.end()) - all.begin());
  worst.value = all[static_cast<std::size_t>(from)];
  worst.tensor = broadcast_text(world, worst.tensor, from, "equivalence.tensor");
  double step = world.rank() == from ? static_cast<double>(worst.step) : 0.0;
  world.all_reduce(std::span(&step, 1), Reduce::sum, "equivalence.step");
  worst.step = static_cast<std::int64_t>(step);
}

}  // namespace

CaseRun run_case(const EquivalenceCase& what, const Mesh& mesh, int threads) {
  return run_case(what, mesh, *make_backend(what.device, threads));
}

CaseRun run_case(const EquivalenceCase& what, const Mesh& mesh, Backend& backend) {
  if (what.at_once % mesh.size(Axis::dp) != 0)
    throw std::logic_error("the sequences computed at once must divide over dp");
  const std::int64_t dp = mesh.size(Axis::dp), rank = mesh.rank(Axis::dp);
  Arena persistent(backend);
  Mixtral model(what.model, mesh, frozen_patterns(what.router, what.freeze), what.routing, what.type);
  model.allocate(backend, persistent, what.sequence_length, true);
  SelectionBias bias(backend, persistent, model);
  if (!what.selection_bias.empty())
    bias.set(what.selection_bias);
  else if (what.router.bias_update_rate > 0)
    bias.begin_at_zero();
  AdamW optimizer(backend, persistent, model.parameters(), mesh, what.optimizer, what.bucket_elements);
  std::vector<float> staging;
  model.parameters().initialize(backend, what.seed, [&](const Parameter& p, std::span<float> values) {
    if (what.adjust) what.adjust(p, values);
    optimizer.keeps_masters()(p, values);
  });
  TrainingStep step(backend, mesh, model, optimizer, what.router, what.at_once / dp, what.recompute,
                    what.objective ? what.objective() : std::make_unique<CrossEntropy>());
  step.use_selection_bias(bias);
  step.measure_routers(true);

  CaseRun run;
  run.at_once = what.at_once;
  for (const Parameter& p : model.parameters()) run.parameters.push_back({p.name, p.shape, p.slice, p.first});
  for (std::int64_t n = 1; n <= what.steps; ++n) {
    const GlobalBatch batch = part_of(make_batch(what, n), what, rank, dp);
    step.steer(n);
    const StepResult result =
        step.compute_gradients({what.at_once * what.accumulation / dp, what.sequence_length, batch.ids, batch.targets,
                                batch.document_start, what.seed + static_cast<std::uint64_t>(n)});
    StepNumbers& found = run.steps.emplace_back();
    found.lm_loss = result.lm_loss;
    found.aux_loss = result.aux_loss;
    found.z_loss = result.z_loss;
    found.grad_norm = result.grad_norm;
    found.expert_load = step.balance().load;
    found.measures = layer_metrics(step.balance(), step.router_measures(), model.has_capacity());
    step.gather_gradients();
    for (const Parameter& p : model.parameters()) found.gradients.push_back(numbers_of(backend, p.gradient));
    step.apply(result, n, what.optimizer.learning_rate);
    for (const Parameter& p : model.parameters()) found.weights.push_back(numbers_of(backend, p.value));
    found.selection_bias = bias.values();
  }
  return run;
}

Deviations compare(const CaseRun& found, const CaseRun& one_rank, const Mesh& mesh,
                   const std::function<bool(const std::string&)>& only) {
  if (found.steps.size() != one_rank.steps.size())
    throw std::logic_error("runs of different numbers of steps are compared");
  std::unordered_map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < one_rank.parameters.size(); ++i) places.emplace(one_rank.parameters[i].name, i);
  Deviations worst;
  for (std::size_t n = 0; n < found.steps.size(); ++n) {
    const StepNumbers &a = found.steps[n], &b = one_rank.steps.at(n);
    const auto step = static_cast<std::int64_t>(n) + 1;
    keep_worse(worst.lm_loss, relative(a.lm_loss, b.lm_loss), step);
    keep_worse(worst.aux_loss, relative(a.aux_loss, b.aux_loss), step);
    keep_worse(worst.z_loss, relative(a.z_loss, b.z_loss), step);
    keep_worse(worst.grad_norm, relative(a.grad_norm, b.grad_norm), step);
    keep_worse(worst.weight, largest_difference(a.selection_bias, b.selection_bias), step, "the selection bias");
    compare_measures(worst.measure, a.measures, b.measures, found.at_once == one_rank.at_once, step);
    for (std::size_t i = 0; i < found.parameters.size(); ++i) {
      const CaseRun::Slice& place = found.parameters[i];
      if (only && !only(place.name)) continue;
      const std::size_t whole = places.at(place.name);
      keep_worse(worst.gradient, deviation(a.gradients[i], place, b.gradients[whole]), step, place.name);
      keep_worse(worst.weight, deviation(a.weights[i], place, b.weights[whole]), step, place.name);
    }
  }
  for (auto* each : {&worst.lm_loss, &worst.aux_loss, &worst.z_loss, &worst.grad_norm, &worst.gradient, &worst.weight,
                     &worst.measure})
    share(*each, mesh.group(Axis::world));
  return worst;
}

std::vector<std::string> violations(const Deviations& d, const Tolerances& tolerances) {
  std::vector<std::string> found;
  const auto check = [&](const char* what, const Deviations::Worst& worst, double allowed) {
    if (worst.value <= allowed) return;
    found.push_back(fmt::format("{} of step {} deviates by {:.2e}{}, allowed {:.0e}", what, worst.step, worst.value,
                                worst.tensor.empty() ? "" : " in " + worst.tensor, allowed));
  };
  check("the language-model loss", d.lm_loss, tolerances.loss);
  check("the balance loss", d.aux_loss, tolerances.loss);
  check("the z loss", d.z_loss, tolerances.loss);
  check("the gradient norm", d.grad_norm, tolerances.grad_norm);
  check("a gradient", d.gradient, tolerances.gradient);
  check("a weight", d.weight, tolerances.weight);
  check("a measure", d.measure, tolerances.measure);
  return found;
}

}  // namespace smoe
