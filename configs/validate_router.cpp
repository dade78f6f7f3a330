#include "configs/validate_router.h"

#include <fmt/format.h>

#include <cstddef>
#include <utility>

#include "configs/field_text.h"

namespace smoe {
namespace {

constexpr const char* schedule_key = "router.aux_loss_schedule";

class RouterProblems {
 public:
  explicit RouterProblems(const RunConfig& config) : config_(config), router_(config.router) {}

  void check_coefficients(bool resolved_model) {
    const std::vector<double>& by_layer = router_.aux_loss_coef_by_layer;
    if (by_layer.empty()) return;
    if (router_.aux_loss_scope == AuxLossScope::hf)
      add("router.aux_loss_coef",
          "found a list, expected a number: in router.aux_loss_scope hf the layers are pooled into one loss");
    const std::int64_t layers = config_.model.num_hidden_layers;
    if (resolved_model && static_cast<std::int64_t>(by_layer.size()) != layers)
      add("router.aux_loss_coef",
          fmt::format("found a list of {}, expected one number a layer (model.num_hidden_layers is {})",
                      by_layer.size(), layers));
  }

  void check_schedule() {
    const AuxLossSchedule& s = router_.aux_loss_schedule;
    const bool moves = s.type == AuxLossScheduleType::linear || s.type == AuxLossScheduleType::cosine,
               steps = s.type == AuxLossScheduleType::steps;
    expect("from", s.from.has_value(), moves, false);
    expect("to", s.to.has_value(), moves, moves);
    expect("steps", s.steps.has_value(), moves, moves);
    expect("at", !s.at.empty(), steps, steps);
    for (std::size_t i = 1; i < s.at.size(); ++i)
      if (s.at[i].step <= s.at[i - 1].step)
        add(fmt::format("{}.at.{}.step", schedule_key, i),
            fmt::format("found {}, expected a later step than that of the entry before it ({})", s.at[i].step,
                        s.at[i - 1].step));
  }

  std::vector<ConfigProblem> take() { return std::move(problems_); }

 private:
  // A field of the schedule that its type has, or must have.
  void expect(const char* field, bool given, bool allowed, bool required) {
    const std::string type = yaml_text(router_.aux_loss_schedule.type), key = fmt::format("{}.{}", schedule_key, field);
    if (given && !allowed) add(key, fmt::format("found with type {}, which has none, expected it absent", type));
    if (!given && required) add(key, fmt::format("found nothing, expected it with type {}", type));
  }
  void add(std::string key, std::string message) { problems_.push_back({{}, std::move(key), std::move(message)}); }

  const RunConfig& config_;
  const RouterConfig& router_;
  std::vector<ConfigProblem> problems_;
};

}  // namespace

std::vector<ConfigProblem> find_router_problems(const RunConfig& config, bool resolved_model) {
  RouterProblems problems(config);
  problems.check_coefficients(resolved_model);
  problems.check_schedule();
  return problems.take();
}

std::vector<std::string> find_router_warnings(const RunConfig& config) {
  std::vector<std::string> warnings;
  const AuxLossSchedule& schedule = config.router.aux_loss_schedule;
  const std::int64_t steps = config.train.steps;
  if (steps > 0 && schedule.steps && *schedule.steps > steps)
    warnings.push_back(
        fmt::format("router.aux_loss_schedule takes {} steps and the run has {}: the coefficient does not arrive",
                    *schedule.steps, steps));
  if (steps > 0 && !schedule.at.empty() && schedule.at.back().step > steps)
    warnings.push_back(
        fmt::format("router.aux_loss_schedule changes at step {} and the run has {}", schedule.at.back().step, steps));
  return warnings;
}

}  // namespace smoe
