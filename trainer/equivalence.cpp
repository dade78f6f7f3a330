#include "trainer/equivalence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "parallel/comm/agreement.h"
#include "trainer/case_training.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {
namespace {

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
  CaseTraining training(what, mesh, backend);
  CaseRun run;
  run.at_once = what.at_once;
  for (const Parameter& p : training.parameters()) run.parameters.push_back({p.name, p.shape, p.slice, p.first});
  for (std::int64_t n = 1; n <= what.steps; ++n) run.steps.push_back(training.step(n));
  return run;
}

Deviations compare(const CaseRun& found, const CaseRun& one_rank, const Mesh& mesh,
                   const std::function<bool(const std::string&)>& only, std::size_t steps) {
  if (found.steps.size() != one_rank.steps.size())
    throw std::logic_error("runs of different numbers of steps are compared");
  std::unordered_map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < one_rank.parameters.size(); ++i) places.emplace(one_rank.parameters[i].name, i);
  Deviations worst;
  if (steps == 0 || steps > found.steps.size()) steps = found.steps.size();
  for (std::size_t n = 0; n < steps; ++n) {
    const StepNumbers &a = found.steps[n], &b = one_rank.steps.at(n);
    const auto step = static_cast<std::int64_t>(n) + 1;
    keep_worse(worst.lm_loss, relative(a.lm_loss, b.lm_loss), step);
    keep_worse(worst.lm_loss, relative(a.loss, b.loss), step, "what is differentiated");
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
