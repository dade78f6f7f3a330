// AdamW (Loshchilov & Hutter, arXiv 1711.05101), clipping by the global norm, and the learning-rate schedule.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace smoe {

struct OptimizerConfig {
  double learning_rate = 3.0e-4;  // the peak, reached after the warm-up
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1.0e-8;
  double weight_decay = 0.1;   // decoupled, on every matrix (embeddings and router too), never on norm weights
  double max_grad_norm = 1.0;  // 0 turns clipping off

  bool operator==(const OptimizerConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.number("learning_rate", self.learning_rate, "[0, inf)");
    visit.number("beta1", self.beta1, "[0, 1)");
    visit.number("beta2", self.beta2, "[0, 1)");
    visit.number("epsilon", self.epsilon, "(0, inf)");
    visit.number("weight_decay", self.weight_decay, "[0, inf)");
    visit.number("max_grad_norm", self.max_grad_norm, "[0, inf)");
  }
};

// After the linear warm-up: cosine and linear fall to min_lr_ratio over the remaining steps, constant stays,
// wsd (warm-up, stable, decay) stays and then falls linearly over the last part.
enum class ScheduleType { cosine, linear, constant, wsd };

inline constexpr auto choices(ScheduleType) {
  return std::array<std::pair<ScheduleType, std::string_view>, 4>{{{ScheduleType::cosine, "cosine"},
                                                                   {ScheduleType::linear, "linear"},
                                                                   {ScheduleType::constant, "constant"},
                                                                   {ScheduleType::wsd, "wsd"}}};
}

struct ScheduleConfig {
  ScheduleType type = ScheduleType::cosine;
  std::int64_t warmup_steps = 100;
  double min_lr_ratio = 0.1;  // the last learning rate, as a share of the peak
  double decay_ratio = 0.1;   // wsd only: the share of all steps that its decay takes

  bool operator==(const ScheduleConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.choice("type", self.type);
    visit.integer("warmup_steps", self.warmup_steps, "[0, 1000000000]");
    visit.number("min_lr_ratio", self.min_lr_ratio, "[0, 1]");
    visit.number("decay_ratio", self.decay_ratio, "[0, 1]");
  }
};

}  // namespace smoe
