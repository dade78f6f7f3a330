#include "model/balance_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <vector>

namespace smoe {
namespace {

// What stands at this step where `configured` stands in the configuration.
double scheduled(const AuxLossSchedule& schedule, double configured, std::int64_t step) {
  const auto between = [&](auto&& shape) {
    const double from = schedule.from.value_or(configured), to = schedule.to.value();
    const double way = static_cast<double>(step - 1) / static_cast<double>(schedule.steps.value());
    return way >= 1 ? to : from + (to - from) * shape(std::max(way, 0.0));
  };
  switch (schedule.type) {
    case AuxLossScheduleType::constant: return configured;
    case AuxLossScheduleType::linear: return between([](double way) { return way; });
    case AuxLossScheduleType::cosine:
      return between([](double way) { return 0.5 * (1 - std::cos(std::numbers::pi * way)); });
    case AuxLossScheduleType::steps: {
      double factor = 1;
      for (const AuxLossSchedule::Change& change : schedule.at)
        if (step >= change.step) factor = change.factor;
      return configured * factor;
    }
  }
  return configured;
}

}  // namespace

void balance_coefficients(const RouterConfig& router, std::int64_t step, std::span<double> by_layer) {
  const std::vector<double>& own = router.aux_loss_coef_by_layer;
  if (own.empty()) {
    std::fill(by_layer.begin(), by_layer.end(), scheduled(router.aux_loss_schedule, router.aux_loss_coef, step));
    return;
  }
  if (own.size() != by_layer.size()) throw std::logic_error("coefficients by layer are one a layer");
  const double factor = scheduled(router.aux_loss_schedule, 1.0, step);
  std::transform(own.begin(), own.end(), by_layer.begin(), [&](double c) { return c * factor; });
}

bool trains_balance(const RouterConfig& router) {
  const AuxLossSchedule& schedule = router.aux_loss_schedule;
  const std::vector<double>& by_layer = router.aux_loss_coef_by_layer;
  const bool configured = by_layer.empty()
                              ? router.aux_loss_coef > 0
                              : std::any_of(by_layer.begin(), by_layer.end(), [](double c) { return c > 0; });
  if (configured || !by_layer.empty()) return configured;  // a factor makes nothing of 0
  return schedule.from.value_or(0) > 0 || schedule.to.value_or(0) > 0;
}

}  // namespace smoe
