#include "trainer/outliers.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace smoe {

// Summed afresh each time: running sums would depend on steps that are no longer remembered.
double deviations_above(double value, std::span<const double> recent) {
  if (recent.size() < least_to_judge || !std::isfinite(value)) return 0;
  const double n = static_cast<double>(recent.size());
  const double mean = std::accumulate(recent.begin(), recent.end(), 0.0) / n;
  double squares = 0;
  for (const double x : recent) squares += (x - mean) * (x - mean);
  const double deviation = std::max(std::sqrt(squares / n), least_deviation * std::abs(mean));
  return deviation > 0 ? (value - mean) / deviation : 0;
}

void remember(double value, std::vector<double>& recent) {
  if (!std::isfinite(value)) return;
  if (recent.size() >= outlier_window)
    recent.erase(recent.begin(), recent.end() - static_cast<std::ptrdiff_t>(outlier_window - 1));
  recent.push_back(value);
}

}  // namespace smoe
