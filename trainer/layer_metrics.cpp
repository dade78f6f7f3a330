#include "trainer/layer_metrics.h"

#include <cmath>
#include <cstddef>

namespace smoe {

void LoadInterval::add(const std::vector<std::vector<double>>& load) {
  if (load_.empty()) {
    load_ = load;
    return;
  }
  for (std::size_t l = 0; l < load.size(); ++l)
    for (std::size_t e = 0; e < load[l].size(); ++e) load_[l][e] += load[l][e];
}

std::vector<double> LoadInterval::take_max_violations() {
  std::vector<double> violations = max_violations(load_);
  load_.clear();
  return violations;
}

std::vector<double> mean_entropies(const std::vector<std::vector<double>>& probability) {
  std::vector<double> entropies;
  for (const std::vector<double>& layer : probability) {
    double nats = 0;
    for (const double p : layer)
      if (p != 0) nats -= p * std::log(p);  // of a NaN, a NaN
    entropies.push_back(layer.size() > 1 ? nats / std::log(static_cast<double>(layer.size())) : nats * 0.0);
  }
  return entropies;
}

LayerMetrics layer_metrics(const BalanceValues& balance, const RouterMeasures& routers, bool has_capacity) {
  LayerMetrics row;
  row.balance_sequence = balance.sequence;
  row.balance_micro_batch = balance.micro_batch;
  row.balance_global_batch = balance.global_batch;
  row.max_vio = max_violations(balance.load);
  row.mean_entropy = mean_entropies(balance.probability);
  const double most = balance.load.empty() ? 0 : std::log(static_cast<double>(balance.load.front().size()));
  for (const double nats : routers.entropy) row.entropy.push_back(most > 0 ? nats / most : nats * 0.0);
  row.logit_norm = routers.logit_norm;
  row.margin = routers.margin;
  row.gradient_lm = routers.gradient_lm;
  row.gradient_balance = routers.gradient_balance;
  row.gradient_z = routers.gradient_z;
  row.cosine_lm_balance = routers.cosine_lm_balance;
  row.cosine_lm_z = routers.cosine_lm_z;
  row.cosine_balance_z = routers.cosine_balance_z;
  if (has_capacity) row.dropped = routers.dropped;
  row.rank_load = routers.rank_load;
  return row;
}

}  // namespace smoe
