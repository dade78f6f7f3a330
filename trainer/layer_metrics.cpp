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
  if (has_capacity) row.dropped = routers.dropped;
  row.rank_load = routers.rank_load;
  return row;
}

}  // namespace smoe
