// What a row of metrics says layer by layer, from the sums of its step.
#pragma once

#include <vector>

#include "model/balance_loss.h"
#include "model/router_measures.h"
#include "trainer/record/metrics.h"

namespace smoe {

// The steps since the last row, as many tokens each: the sum of what each expert had of them.
class LoadInterval {
 public:
  void add(const std::vector<std::vector<double>>& load);  // [L][E] of a step
  // MaxVio by layer of the interval, which ends here.
  std::vector<double> take_max_violations();

 private:
  std::vector<std::vector<double>> load_;
};

// Entropy of each layer's probabilities over ln E, 0 to 1; of a single expert 0.
std::vector<double> mean_entropies(const std::vector<std::vector<double>>& probability);

LayerMetrics layer_metrics(const BalanceValues& balance, const RouterMeasures& routers, bool has_capacity);

}  // namespace smoe
