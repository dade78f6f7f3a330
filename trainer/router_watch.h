// What routers do that a run's user should hear of: each of three things once a run, with what to do about it.
//
//   idle expert      has had less than `idle_share` of an even share of the assignments over log.idle_expert_steps steps: it learns
//                    next to nothing. Not nothing at all: experts that a collapsed router had left still got a stray token in
//                    every hundred steps of a thousand tokens. By chance alone nobody is, unless N steps have no more than a dozen
//                    assignments an expert
//   certain router   the entropy of a layer's tokens has been below `certain` of ln E for `rows` rows: one expert has all the weight,
//                    and a softmax there has next to no gradient. Not of sigmoid scores: the entropy is that of their shares,
//                    and each score may learn on where one stands out. Not where E = K, which leaves nothing to choose
//   heavy balance    the balance loss's part of the gate's gradient has been above the language model's for `rows` rows. Not before
//                    the warm-up is over, nor in the first `settling_steps`: while experts are still alike the language model has
//                    little to tell a router, and the part of any useful coefficient is the larger, for tens of steps. Not where the
//                    language model has no part: a single expert a token whose weight is always 1, or nothing trained below
//
// Gates that are not trained are told of where experts are idle alone. A number that is not finite neither warns nor
// forgives; steps that were refused are not shown. Only counts of what was shown decide, so all ranks find the same; a
// resumed run begins to count again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/router_config.h"
#include "parallel/parameter.h"
#include "trainer/record/metrics.h"

namespace smoe {

struct RouterWatchOptions {
  ModelConfig model;
  RouterConfig router;
  std::vector<bool> trained_gates;       // [L]
  std::int64_t idle_expert_steps = 100;  // 0: idle experts are not told of
  std::int64_t warmup_steps = 0;
};

// [L] of a model's declared parameters, whose layers are in order.
std::vector<bool> trained_gates(const ParameterSet& whole);

class RouterWatch {
 public:
  // Seen in a model of four layers of eight experts, in runs of 300 steps: without a balance loss, an expert of each of three
  // layers came to 0.0001 to 0.005 of an even share; the least of any came to 0.14 at a coefficient of 0.001, to 0.7 at 0.01.
  static constexpr double idle_share = 0.01;
  // Of ln E. Of 8 experts the mean token's first has then about 0.995 of the probability, and p (1 - p), by which what its
  // logit learns is multiplied, is a fiftieth of its most.
  static constexpr double certain = 0.02;
  // One after the other: what a single row's few tokens say by chance does not last for ten.
  static constexpr std::int64_t rows = 10;
  // In that model, warmed up in 50 steps, the balance part was above the language model's for the first 33 steps at a
  // coefficient of 0.01, which did no harm, and for the first 72 at 0.1; at 1.0 it stayed there.
  static constexpr std::int64_t settling_steps = 100;

  explicit RouterWatch(RouterWatchOptions options);

  // Both return what is to be told now, each a text on one line that begins with its step. Of every step: load [L][E].
  std::vector<std::string> see_step(std::int64_t step, const std::vector<std::vector<double>>& load);
  // Of a step whose routers were measured: step, aux_loss_coef and by_layer. What is empty there is not looked at.
  std::vector<std::string> see_row(const StepMetrics& row);

 private:
  std::string idle_experts(std::int64_t step) const;
  std::string certain_routers(const StepMetrics& row) const;
  std::string heavy_balance(const StepMetrics& row) const;
  void count_certain(const StepMetrics& row);
  void count_heavy(const StepMetrics& row);
  bool is_trained(std::size_t layer) const { return options_.trained_gates[layer]; }

  RouterWatchOptions options_;
  std::vector<std::vector<std::int64_t>> idle_;  // [L][E] steps since it last had enough
  std::vector<std::vector<double>> had_;         // [L][E] what it had since then, in even shares of a step
  std::vector<std::int64_t> certain_, heavy_;    // [L] rows in a row
  bool told_idle_ = false, told_certain_ = false, told_heavy_ = false;
};

}  // namespace smoe
