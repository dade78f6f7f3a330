#include "trainer/router_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace smoe {
namespace {

// "layer 3", "layers 0-3, 7"
std::string named_layers(const std::vector<std::size_t>& layers) {
  std::string text = layers.size() == 1 ? "layer " : "layers ";
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t last = i;
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) ++last;
    text += fmt::format("{}{}", i == 0 ? "" : ", ", layers[i]);
    if (last > i) text += fmt::format("{}{}", last == i + 1 ? ", " : "-", layers[last]);
    i = last + 1;
  }
  return text;
}

std::vector<std::size_t> indices_that_reach(const std::vector<std::int64_t>& counts, std::int64_t least) {
  std::vector<std::size_t> found;
  for (std::size_t l = 0; l < counts.size(); ++l)
    if (counts[l] >= least) found.push_back(l);
  return found;
}

bool weighs_balance(const RouterConfig& router) {
  const std::vector<double>& layers = router.aux_loss_coef_by_layer;
  if (layers.empty()) return router.aux_loss_coef > 0;
  return std::any_of(layers.begin(), layers.end(), [](double c) { return c > 0; });
}

// Of what is one number.
std::string coefficient_now(const RouterConfig& router) {
  return router.aux_loss_coef_by_layer.empty() ? fmt::format(" ({} now)", router.aux_loss_coef) : "";
}

std::string cure_of_idleness(const RouterConfig& router, bool all_are_trained) {
  constexpr const char* bias =
      "router.bias_update_rate (1e-3 is usual), which, unlike a loss, reaches an expert whose probability is near 0";
  if (router.bias_update_rate > 0)
    return fmt::format(
        "Raise router.bias_update_rate ({} now), which is how far a step moves the selection bias, or give it time",
        router.bias_update_rate);
  if (!all_are_trained)
    return fmt::format("Train these gates (router.frozen, train.freeze: some are not), or set {}", bias);
  if (router.target_max_vio)
    return fmt::format("Lower router.target_max_vio ({} now), or put in its place {}", *router.target_max_vio, bias);
  if (!weighs_balance(router))
    return fmt::format("No loss balances this run: set router.aux_loss_coef (0.01 is usual), or {}", bias);
  return fmt::format("Raise router.aux_loss_coef{}, or set {}", coefficient_now(router), bias);
}

std::string cure_of_heaviness(const RouterConfig& router) {
  if (router.target_max_vio)
    return fmt::format("Raise router.target_max_vio ({} now), which asks for less balance", *router.target_max_vio);
  if (router.aux_loss_schedule.type != AuxLossScheduleType::constant)
    return "Lower router.aux_loss_coef, or have router.aux_loss_schedule lower it sooner";
  return fmt::format("Lower router.aux_loss_coef{}", coefficient_now(router));
}

}  // namespace

std::vector<bool> trained_gates(const ParameterSet& whole) {
  std::vector<bool> found;
  for (const Parameter& p : whole)
    if (p.name.ends_with(".gate.weight")) found.push_back(p.trainable);
  return found;
}

RouterWatch::RouterWatch(RouterWatchOptions options) : options_(std::move(options)) {
  const auto layers = static_cast<std::size_t>(options_.model.num_hidden_layers);
  idle_.assign(layers, std::vector<std::int64_t>(static_cast<std::size_t>(options_.model.num_local_experts)));
  had_.assign(layers, std::vector<double>(static_cast<std::size_t>(options_.model.num_local_experts)));
  certain_.assign(layers, 0);
  heavy_.assign(layers, 0);
}

std::vector<std::string> RouterWatch::see_step(std::int64_t step, const std::vector<std::vector<double>>& load) {
  if (told_idle_ || options_.idle_expert_steps == 0) return {};
  const double enough = idle_share * static_cast<double>(options_.idle_expert_steps);
  std::int64_t longest = 0;
  for (std::size_t l = 0; l < load.size(); ++l)
    for (std::size_t e = 0; e < load[l].size(); ++e) {
      if (!std::isfinite(load[l][e])) continue;
      ++idle_[l][e];
      had_[l][e] += load[l][e] * static_cast<double>(load[l].size());
      if (had_[l][e] >= enough) idle_[l][e] = 0, had_[l][e] = 0;
      longest = std::max(longest, idle_[l][e]);
    }
  if (longest < options_.idle_expert_steps) return {};
  told_idle_ = true;
  return {idle_experts(step)};
}

std::vector<std::string> RouterWatch::see_row(const StepMetrics& row) {
  std::vector<std::string> told;
  if (!told_certain_) count_certain(row);
  if (!told_heavy_) count_heavy(row);
  const auto is_due = [](const std::vector<std::int64_t>& counts) { return !indices_that_reach(counts, rows).empty(); };
  if (!told_certain_ && is_due(certain_)) {
    told_certain_ = true;
    told.push_back(certain_routers(row));
  }
  if (!told_heavy_ && is_due(heavy_)) {
    told_heavy_ = true;
    told.push_back(heavy_balance(row));
  }
  return told;
}

void RouterWatch::count_certain(const StepMetrics& row) {
  const ModelConfig& model = options_.model;
  if (model.scoring_func != Score::softmax || model.num_experts_per_tok == model.num_local_experts) return;
  const std::vector<double>& entropy = row.by_layer.entropy;
  for (std::size_t l = 0; l < entropy.size(); ++l)
    if (is_trained(l) && std::isfinite(entropy[l])) certain_[l] = entropy[l] < certain ? certain_[l] + 1 : 0;
}

void RouterWatch::count_heavy(const StepMetrics& row) {
  const ModelConfig& model = options_.model;
  const bool weight_is_always_1 = model.num_experts_per_tok == 1 && model.norm_topk_prob;  // said at the start of a run
  if (weight_is_always_1 || row.step <= std::max(settling_steps, options_.warmup_steps)) return;
  const std::vector<double>&lm = row.by_layer.gradient_lm, &balance = row.by_layer.gradient_balance;
  for (std::size_t l = 0; l < lm.size(); ++l)
    if (is_trained(l) && lm[l] > 0 && std::isfinite(lm[l]) && std::isfinite(balance[l]))
      heavy_[l] = balance[l] > lm[l] ? heavy_[l] + 1 : 0;
}

std::string RouterWatch::idle_experts(std::int64_t step) const {
  const std::int64_t least = options_.idle_expert_steps;
  std::vector<std::size_t> layers;
  std::size_t all = 0, most = 0, most_in = 0, one = 0;
  bool all_are_trained = true;
  for (std::size_t l = 0; l < idle_.size(); ++l) {
    const std::vector<std::size_t> idle = indices_that_reach(idle_[l], least);
    if (idle.empty()) continue;
    layers.push_back(l);
    all += idle.size();
    all_are_trained = all_are_trained && is_trained(l);
    if (idle.size() > most) most = idle.size(), most_in = l, one = idle.front();
  }
  const std::string share = fmt::format("{} of {}", most, options_.model.num_local_experts);
  std::string who = fmt::format("expert {} of layer {} has", one, most_in), then = "it learns";
  if (all > 1) {
    who = fmt::format("{} experts of {} ({}) have", all, named_layers(layers),
                      all == most * layers.size() ? share + (layers.size() > 1 ? " in each" : "")
                                                  : fmt::format("layer {} has the most: {}", most_in, share));
    then = "they learn";
  }
  return fmt::format("step {}: {} had less than {}% of an even share of the tokens in {} steps: {} next to nothing. {}",
                     step, who, 100 * idle_share, least, then, cure_of_idleness(options_.router, all_are_trained));
}

std::string RouterWatch::certain_routers(const StepMetrics& row) const {
  const std::vector<std::size_t> layers = indices_that_reach(certain_, rows);
  const std::vector<double>& entropy = row.by_layer.entropy;
  const std::size_t least =
      *std::min_element(layers.begin(), layers.end(), [&](auto a, auto b) { return entropy[a] < entropy[b]; });
  const RouterConfig& router = options_.router;
  const std::string z = router.z_loss_coef > 0 ? fmt::format("Raise router.z_loss_coef ({} now)", router.z_loss_coef)
                                               : "Set router.z_loss_coef (1e-3 is usual)";
  return fmt::format(
      "step {}: the router of {} is certain: a token's entropy has been below {} of ln E for {} rows ({:.2g} in layer {}), so one "
      "expert has all the weight and hardly any gradient reaches the router. {}, which holds its logits down, or lower "
      "optimizer.learning_rate, and go on from a checkpoint of before",
      row.step, named_layers(layers), certain, rows, entropy[least], least, z);
}

std::string RouterWatch::heavy_balance(const StepMetrics& row) const {
  const std::vector<std::size_t> layers = indices_that_reach(heavy_, rows);
  const std::vector<double>&lm = row.by_layer.gradient_lm, &balance = row.by_layer.gradient_balance;
  const auto ratio = [&](std::size_t l) { return balance[l] / lm[l]; };
  const std::size_t worst =
      *std::max_element(layers.begin(), layers.end(), [&](auto a, auto b) { return ratio(a) < ratio(b); });
  std::string coefficient;
  if (const std::vector<double>& c = row.aux_loss_coef; !c.empty())
    coefficient = fmt::format(", coefficient {:.3g}", c.size() == 1 ? c.front() : c[worst]);
  return fmt::format(
      "step {}: the balance loss outweighs the language model at the gate of {}: the norm of its part of the gradient has been the "
      "larger for {} rows ({:.2g} beside {:.2g} in layer {}{}). {}, or put router.bias_update_rate in its place, which has no gradient",
      row.step, named_layers(layers), rows, balance[worst], lm[worst], worst, coefficient,
      cure_of_heaviness(options_.router));
}

}  // namespace smoe
