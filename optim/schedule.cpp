#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace smoe {
namespace {

// Share of the way from the step after `first` to `last`, in [0, 1].
double progress(std::int64_t step, std::int64_t first, std::int64_t last) {
  if (last <= first) return 1.0;
  return std::clamp(static_cast<double>(step - first) / static_cast<double>(last - first), 0.0, 1.0);
}

}  // namespace

double learning_rate(const ScheduleConfig& schedule, double peak, std::int64_t step, std::int64_t steps) {
  if (step <= schedule.warmup_steps)
    return peak * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  const double low = schedule.min_lr_ratio;
  switch (schedule.type) {
    case ScheduleType::constant: return peak;
    case ScheduleType::linear: return peak * (1 - (1 - low) * progress(step, schedule.warmup_steps, steps));
    case ScheduleType::cosine:
      return peak *
             (low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * progress(step, schedule.warmup_steps, steps))));
    case ScheduleType::wsd: {
      const auto decay = static_cast<std::int64_t>(std::llround(schedule.decay_ratio * static_cast<double>(steps)));
      const std::int64_t stable_until = std::max(schedule.warmup_steps, steps - decay);
      if (step <= stable_until) return peak;
      return peak * (1 - (1 - low) * progress(step, stable_until, steps));
    }
  }
  return peak;
}

}  // namespace smoe
