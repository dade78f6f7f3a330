#include "model/max_vio_controller.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace smoe {

double max_vio(std::span<const double> counts, std::int64_t experts) {
  const auto width = static_cast<std::size_t>(experts);
  double worst = 0;
  for (std::size_t first = 0; first < counts.size(); first += width)
    worst = std::max(worst, max_vio_of_layer(counts.subspan(first, width)));
  return worst;
}

double MaxVioController::error() const {
  if (state_.steps == 0) return 0;
  if (state_.smoothed <= 0) return -1;
  return std::clamp(std::log(state_.smoothed / target_), -1.0, 1.0);
}

double MaxVioController::output() const { return proportional_gain * error() + state_.integral; }

void MaxVioController::observe(double max_vio) {
  ++state_.steps;
  state_.smoothed += (max_vio - state_.smoothed) / static_cast<double>(std::min(state_.steps, window));
  const double e = error(), u = output();
  const bool outward = (u >= range && e > 0) || (u <= -range && e < 0);
  if (!outward) state_.integral += integral_gain * e;
}

double MaxVioController::factor() const { return std::exp(std::clamp(output(), -range, range)); }

}  // namespace smoe
