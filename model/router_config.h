// How the routers are trained: balance loss, z loss, and what steers them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "model/routing_options.h"

namespace smoe {

// Over which tokens the shares f and mean probabilities P of the balance loss B = E sum_i f_i P_i are taken.
enum class AuxLossScope {
  global_batch,  // P of the micro-batch on all ranks, f over the accumulation steps of this optimizer step so far
  micro_batch,   // everything computed at once on all ranks
  sequence,      // each sequence by itself: the same under every layout
  rank,          // one rank's tokens, as several frameworks do: depends on the layout, for comparison only
  hf,            // transformers' value: layers pooled before the product, balance scores num_experts_per_tok
};

inline constexpr auto choices(AuxLossScope) {
  return std::array<std::pair<AuxLossScope, std::string_view>, 5>{{{AuxLossScope::global_batch, "global_batch"},
                                                                   {AuxLossScope::micro_batch, "micro_batch"},
                                                                   {AuxLossScope::sequence, "sequence"},
                                                                   {AuxLossScope::rank, "rank"},
                                                                   {AuxLossScope::hf, "hf"}}};
}

enum class AuxLossScheduleType { constant, linear, cosine, steps };

inline constexpr auto choices(AuxLossScheduleType) {
  return std::array<std::pair<AuxLossScheduleType, std::string_view>, 4>{{{AuxLossScheduleType::constant, "constant"},
                                                                          {AuxLossScheduleType::linear, "linear"},
                                                                          {AuxLossScheduleType::cosine, "cosine"},
                                                                          {AuxLossScheduleType::steps, "steps"}}};
}

// How the weight of the balance loss goes over a run (model/balance_schedule.h). What belongs to another type is absent.
struct AuxLossSchedule {
  AuxLossScheduleType type = AuxLossScheduleType::constant;
  std::optional<double> from,
      to;  // linear, cosine: coefficients, or factors of a list of them; from: the configured one
  std::optional<std::int64_t> steps;  // that the way takes; from the step after them on it is at `to`
  struct Change {
    std::int64_t step = 0;  // the first with this factor of the configured coefficient
    double factor = 1.0;

    bool operator==(const Change&) const = default;

    template <class Self, class Visitor>
    static void visit_fields(Self& self, Visitor& visit) {
      visit.integer("step", self.step, "[1, 1000000000]");
      visit.number("factor", self.factor, "[0, inf)");
    }
  };
  std::vector<Change> at;  // steps

  bool operator==(const AuxLossSchedule&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.choice("type", self.type);
    visit.number("from", self.from, "[0, inf)");
    visit.number("to", self.to, "[0, inf)");
    visit.integer("steps", self.steps, "[1, 1000000000]");
    visit.list("at", self.at);
  }
};

inline constexpr auto choices(CapacityOrder) {
  return std::array<std::pair<CapacityOrder, std::string_view>, 2>{
      {{CapacityOrder::position, "position"}, {CapacityOrder::probability, "probability"}}};
}

enum class ForcedRoutingType { none, uniform, skewed };

inline constexpr auto choices(ForcedRoutingType) {
  return std::array<std::pair<ForcedRoutingType, std::string_view>, 3>{{{ForcedRoutingType::none, "none"},
                                                                        {ForcedRoutingType::uniform, "uniform"},
                                                                        {ForcedRoutingType::skewed, "skewed"}}};
}

// Whom the routers are made to choose in training, whatever they score: for benchmarks (model/forced_routing.h).
struct ForcedRouting {
  ForcedRoutingType type = ForcedRoutingType::none;
  std::optional<double> max_vio;  // skewed: of the first expert, from which loads fall by a constant factor

  bool operator==(const ForcedRouting&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.choice("type", self.type);
    visit.number("max_vio", self.max_vio, "(0, inf)");
  }
};

// MaxVio is below this where a token takes an expert at most once, and not all tokens the same ones: 0 where every token takes
// every expert.
constexpr double most_max_vio(std::int64_t experts, std::int64_t experts_per_token) {
  return static_cast<double>(experts) / static_cast<double>(experts_per_token) - 1;
}

struct RouterConfig {
  double aux_loss_coef = 0.01;                 // per layer, in units where a perfectly balanced layer scores 1.0
  std::vector<double> aux_loss_coef_by_layer;  // in its place, where layers differ; else empty
  AuxLossScope aux_loss_scope = AuxLossScope::global_batch;
  AuxLossSchedule aux_loss_schedule;
  std::optional<double> target_max_vio;  // the coefficients are steered to reach it (model/max_vio_controller.h)
  double z_loss_coef = 0.0;              // per layer, of the mean squared log-sum-exp (ST-MoE, arXiv 2202.08906)
  double bias_update_rate = 0.0;         // of the selection bias (model/selection_bias.h); 0: left as it is
  double jitter_noise = 0.0;  // the routers' input is multiplied by numbers from [1 - it, 1 + it) (arXiv 2101.03961)
  std::optional<double> capacity_factor;  // of what an expert takes of a sequence (model/routing_options.h); none: all
  CapacityOrder capacity_order = CapacityOrder::position;
  ForcedRouting forced_routing;
  bool frozen = false;             // the routers' weights are not trained
  double learning_rate_scale = 1;  // of the routers' weights: what optimizer.learning_rate is multiplied by

  RoutingOptions routing() const {
    return {capacity_factor.value_or(0), capacity_order, static_cast<float>(jitter_noise), learning_rate_scale};
  }

  bool operator==(const RouterConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.number_or_numbers("aux_loss_coef", self.aux_loss_coef, self.aux_loss_coef_by_layer, "[0, inf)");
    visit.choice("aux_loss_scope", self.aux_loss_scope);
    visit.variant("aux_loss_schedule", self.aux_loss_schedule);
    visit.number("target_max_vio", self.target_max_vio, "(0, inf)");
    visit.number("z_loss_coef", self.z_loss_coef, "[0, inf)");
    visit.number("bias_update_rate", self.bias_update_rate, "[0, 1]");
    visit.number("jitter_noise", self.jitter_noise, "[0, 1)");
    visit.number("capacity_factor", self.capacity_factor, "(0, inf)");
    visit.choice("capacity_order", self.capacity_order);
    visit.variant("forced_routing", self.forced_routing);
    visit.flag("frozen", self.frozen);
    visit.number("learning_rate_scale", self.learning_rate_scale, "(0, inf)");
  }
};

}  // namespace smoe
