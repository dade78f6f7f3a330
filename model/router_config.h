// How the routers are trained: balance loss, z loss, and what steers them.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

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

struct RouterConfig {
  double aux_loss_coef = 0.01;  // per layer, in units where a perfectly balanced layer scores 1.0
  AuxLossScope aux_loss_scope = AuxLossScope::global_batch;
  std::string aux_loss_schedule = "constant";
  std::optional<double> target_max_vio;  // the coefficient is steered to reach this MaxVio
  double z_loss_coef = 0.0;              // per layer, of the mean squared log-sum-exp (ST-MoE, arXiv 2202.08906)
  double bias_update_rate = 0.0;         // of the selection bias (model/selection_bias.h); 0: left as it is
  bool frozen = false;                   // the routers' weights are not trained

  bool operator==(const RouterConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.number("aux_loss_coef", self.aux_loss_coef, "[0, inf)");
    visit.choice("aux_loss_scope", self.aux_loss_scope);
    visit.not_available("aux_loss_schedule", self.aux_loss_schedule);
    visit.not_available("target_max_vio", self.target_max_vio);
    visit.number("z_loss_coef", self.z_loss_coef, "[0, inf)");
    visit.number("bias_update_rate", self.bias_update_rate, "[0, 1]");
    visit.flag("frozen", self.frozen);
  }
};

}  // namespace smoe
