#include "configs/validate_router.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "configs/field_text.h"

namespace smoe {
namespace {

constexpr const char* schedule_key = "router.aux_loss_schedule";

// Assignments an expert, layer and step.
double mean_load(const RunConfig& config) {
  const double tokens =
      static_cast<double>(config.train.global_batch_size) * static_cast<double>(config.data.sequence_length);
  return tokens * static_cast<double>(config.model.num_experts_per_tok) /
         static_cast<double>(config.model.num_local_experts);
}

// About the MaxVio of routers that favour no expert and choose for each token anew: the largest of L E loads, each as a number
// of T tokens of which K / E take an expert.
double max_vio_of_chance(const RunConfig& config) {
  const double share = static_cast<double>(config.model.num_experts_per_tok) /
                       static_cast<double>(config.model.num_local_experts),
               loads = static_cast<double>(config.model.num_hidden_layers * config.model.num_local_experts);
  return std::sqrt((1 - share) / mean_load(config) * 2 * std::log(loads));
}

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

  void check_target(bool resolved_model) {
    if (!router_.target_max_vio) return;
    const char* const key = "router.target_max_vio";
    const std::vector<double>& by_layer = router_.aux_loss_coef_by_layer;
    const bool all_zero = by_layer.empty()
                              ? router_.aux_loss_coef == 0
                              : std::all_of(by_layer.begin(), by_layer.end(), [](double c) { return c == 0; });
    if (all_zero)
      add(key,
          "found with router.aux_loss_coef 0, expected one above 0: it is what is steered, and steering multiplies it");
    if (router_.aux_loss_schedule.type != AuxLossScheduleType::constant)
      add(key,
          fmt::format("found with router.aux_loss_schedule {}, expected constant beside it: both set the coefficient",
                      yaml_text(router_.aux_loss_schedule.type)));
    if (router_.bias_update_rate > 0)
      add(key,
          fmt::format(
              "found with router.bias_update_rate {}, expected one of them: the bias alone brings MaxVio down, and the "
              "coefficient would end at its lower bound",
              yaml_text(router_.bias_update_rate)));
    if (!resolved_model) return;
    const double least = 1 / mean_load(config_);
    if (*router_.target_max_vio < least)
      add(key, fmt::format(
                   "found {}, expected at least {:.3g}: with a mean load of {:.6g} assignments an expert and step, one "
                   "assignment more is that much",
                   yaml_text(*router_.target_max_vio), least, mean_load(config_)));
    else
      expect_below_collapse(key, *router_.target_max_vio);
  }

  void check_lora() {
    if (!config_.lora) return;
    const auto beside = [&](const char* key, const std::string& value) {
      add(key,
          fmt::format(
              "found {} with lora, expected it without: it changes the routers beside the adapters, and an adapter's directory "
              "has no place for it",
              value));
    };
    if (router_.frozen && routers_are_trained(router_, config_.lora))
      add("router.frozen",
          "found true with gate among lora.target_modules, expected one of the two: adapters beside the routers change them");
    if (router_.bias_update_rate > 0) beside("router.bias_update_rate", yaml_text(router_.bias_update_rate));
    if (router_.forced_routing.type != ForcedRoutingType::none)
      beside("router.forced_routing", yaml_text(router_.forced_routing.type));
  }

  void check_capacity() {
    if (router_.capacity_order != CapacityOrder::position && !router_.capacity_factor)
      add("router.capacity_order",
          fmt::format("found {} without router.capacity_factor, expected one beside it: without it nothing is dropped",
                      yaml_text(router_.capacity_order)));
  }

  void check_forced_routing(bool resolved_model) {
    const ForcedRouting& forced = router_.forced_routing;
    const char* const key = "router.forced_routing";
    const std::string max_vio = fmt::format("{}.max_vio", key);
    const bool skewed = forced.type == ForcedRoutingType::skewed;
    if (skewed && !forced.max_vio) add(max_vio, "found nothing, expected it with type skewed");
    if (!skewed && forced.max_vio)
      add(max_vio, fmt::format("found with type {}, which has none, expected it absent", yaml_text(forced.type)));
    if (forced.type == ForcedRoutingType::none) return;
    const auto beside = [&](const char* other, const std::string& value) {
      add(key, fmt::format("found with {} {}, expected one of them: what it would steer by is not the routers' choice",
                           other, value));
    };
    if (router_.bias_update_rate > 0) beside("router.bias_update_rate", yaml_text(router_.bias_update_rate));
    if (router_.target_max_vio) beside("router.target_max_vio", yaml_text(*router_.target_max_vio));
    if (!resolved_model || !skewed || !forced.max_vio) return;
    if (config_.model.num_experts_per_tok >= config_.model.num_local_experts)
      add(key, "found skewed, expected none or uniform: every token takes every expert, and no load is uneven");
    else
      expect_below_collapse(max_vio, *forced.max_vio);
  }

  std::vector<ConfigProblem> take() { return std::move(problems_); }

 private:
  void expect_below_collapse(const std::string& key, double max_vio) {
    const double most = most_max_vio(config_.model.num_local_experts, config_.model.num_experts_per_tok);
    if (max_vio >= most)
      add(key, fmt::format("found {}, expected less than {:.3g}: MaxVio is never above that, which it is with all "
                           "tokens on the same model.num_experts_per_tok",
                           yaml_text(max_vio), most));
  }
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
  problems.check_target(resolved_model);
  problems.check_capacity();
  problems.check_lora();
  problems.check_forced_routing(resolved_model);
  return problems.take();
}

std::vector<std::string> find_router_warnings(const RunConfig& config) {
  std::vector<std::string> warnings;
  const std::vector<double>& by_layer = config.router.aux_loss_coef_by_layer;
  const bool balances = by_layer.empty()
                            ? config.router.aux_loss_coef > 0
                            : std::any_of(by_layer.begin(), by_layer.end(), [](double c) { return c > 0; });
  if (balances && !routers_are_trained(config.router, config.lora))
    warnings.emplace_back(
        "router.aux_loss_coef is above 0 and no router is trained: the balance loss trains the layers below to please the routers "
        "as they are (0 is the default here)");
  const AuxLossSchedule& schedule = config.router.aux_loss_schedule;
  const std::int64_t steps = config.train.epochs ? 0 : config.train.steps;  // 0: not known here
  if (steps > 0 && schedule.steps && *schedule.steps > steps)
    warnings.push_back(
        fmt::format("router.aux_loss_schedule takes {} steps and the run has {}: the coefficient does not arrive",
                    *schedule.steps, steps));
  if (steps > 0 && !schedule.at.empty() && schedule.at.back().step > steps)
    warnings.push_back(
        fmt::format("router.aux_loss_schedule changes at step {} and the run has {}", schedule.at.back().step, steps));
  const auto& target = config.router.target_max_vio;
  if (const double chance = max_vio_of_chance(config); target && *target < chance)
    warnings.push_back(fmt::format(
        "router.target_max_vio is {}: even routers that favour no expert have about {:.2g} by chance in a step of {} tokens",
        yaml_text(*target), chance, config.train.global_batch_size * config.data.sequence_length));
  return warnings;
}

}  // namespace smoe
