// The losses on the router, from the counts and probability sums that the layers return.
//
// For E experts, K per token and a group of T tokens, with f_i = assignments to i / (K T), a constant in the gradient,
// and P_i the mean probability of i:     B = E * sum_i f_i P_i       (Switch: arXiv 2101.03961, eq. 4, for top K)
// A perfectly balanced layer scores 1; all tokens on the same K experts score E / K. The scopes differ in the group:
//   micro_batch   everything computed at once; averaged over the accumulation steps
//   global_batch  P as in micro_batch; f over the accumulation steps of this optimizer step so far (arXiv 2501.11873)
//   sequence      each sequence alone; averaged over sequences
//   rank          the tokens of one rank
//   hf            K * E * sum_i mean_l(f_li) * mean_l(P_li): layers pooled before the product, as transformers does;
//                 balance scores K, and imbalances of different layers cancel
// The z loss (ST-MoE: arXiv 2202.08906, eq. 5) is mean_t(logsumexp(logits_t)^2) per layer.
//
// Assignments are what the tokens chose, whether or not an expert's capacity then drops them (routing_options.h).
// Padding is in no group: T is the tokens that are not, and a sequence of nothing else is none. Where micro-batches differ in
// their tokens, each weighs in the step's averages by them, and in those of `sequence` by its sequences.
// Every scope is measured at every step, whichever is trained. Counts and sums are made global before anything is
// multiplied, so value and gradient do not depend on the layout: those of `sequence` never do, those of the others
// (but `rank`, which is an average over ranks) only on how many sequences are computed at once, dp * micro_batch_size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/host_mirror.h"
#include "model/context.h"
#include "model/model_config.h"
#include "model/router.h"
#include "model/router_config.h"

namespace smoe {

struct BalanceTotals;

// Averages over the micro-batches of a step. By layer, but hf, which has one value.
struct BalanceValues {
  std::vector<double> micro_batch, global_batch, sequence, rank, z;
  double hf = 0;
  std::vector<std::vector<double>> load;         // [L][E] share of the step's assignments, each layer sums to 1
  std::vector<std::vector<double>> probability;  // [L][E] mean over its tokens, likewise

  double trained(AuxLossScope scope) const;  // summed over layers (hf: the pooled value)
  // The same, each layer's times its coefficient.
  double weighted(AuxLossScope scope, const std::vector<double>& coefficients) const;
  double z_total() const;
};

class BalanceLoss {
 public:
  // The backend that add_micro_batch() computes on must outlive this.
  BalanceLoss(const ModelConfig& model, const RouterConfig& router);

  // Device tensors [L,N,E], [L,N,E], [L,N], one slice a layer: sums over N runs of this rank's tokens, none of which
  // crosses from one sequence into the next.
  struct Statistics {
    Tensor counts, probability_sums, z_sums;
    std::int64_t sequences = 0, sequence_length = 0;  // of the whole micro-batch, as the tp group has it
    std::int64_t tokens = 0;                          // of this rank, without padding
    std::int64_t first = 0, run = 0;  // where this rank's begin in the micro-batch; tokens of a run, padding among them
    Tensor measures{};                // [L,3] f64 (router_measures.h); empty: not wanted
    std::span<const std::int32_t> padded_ids{};  // as the batch's, and for as long
    RouterStatistics layer(std::int64_t l) const;
  };
  Statistics take_statistics(Context& context, const TokenBatch& batch) const;
  // Of a micro-batch without padding.
  Statistics take_statistics(Context& context, std::int64_t sequences, std::int64_t sequence_length) const;

  // What a step holds, over the world and all of its micro-batches, without padding.
  struct StepSize {
    double tokens = 0, sequences = 0;
  };
  // Forgets the accumulation of the step before. micro_batches: how many this step has, all alike in size.
  void begin_step(std::int64_t micro_batches);
  // Of micro-batches that differ.
  void begin_step(const StepSize& size);
  // The layers weigh what the schedule (balance_schedule.h) gives this step, times the factor, from the step that begins next on;
  // until then as in step 1.
  void weigh_layers(std::int64_t step, double factor = 1);
  const std::vector<double>& coefficients() const { return coefficients_; }  // [L]

  // Between forward and backward of each micro-batch: makes the statistics global (one all-reduce over the world for all
  // layers, and before it one over the tp group, which shares sequences), adds to the step's values, and leaves in
  // `gradients` [L] what backward needs (tables live in the activations). A micro-batch's losses count for its share of the step.
  void add_micro_batch(Context& context, const Statistics& statistics, std::vector<RouterGradient>& gradients);
  const BalanceValues& values() const { return values_; }  // of the step, complete after its last micro-batch
  // [L,E] assignments over the world and the micro-batches of the step so far.
  std::span<const double> counts() const { return running_counts_; }

 private:
  // Of a micro-batch: how many of its like, in tokens or in sequences, make up the step.
  double of_its_like(double size, double StepSize::*all) const;
  void gather_runs(Context& context, const Statistics& statistics);
  void sum_own(Context& context, const Statistics& statistics, const BalanceTotals& totals);
  void add_counts(const BalanceTotals& totals, double share);

  std::int64_t layers_, experts_, experts_per_token_;
  RouterConfig router_;
  std::vector<double> coefficients_;  // [L]
  std::int64_t micro_batches_ = 1;    // 0: they differ, and together are
  StepSize step_size_;
  double seen_ = 0;                                       // tokens of the micro-batches so far
  HostMirror<float> counts_, probability_sums_, z_sums_;  // [L,N,E], [L,N,E], [L,N] of this rank, on the host
  std::vector<double> lengths_;                           // [B] of the sequences of the tp group, without padding
  std::vector<double> sequence_sums_;                     // [L,B,2E] counts and probabilities of each of them
  std::vector<double> own_counts_;                        // [L,E] of this rank
  std::vector<double> world_;                             // see BalanceTotals
  std::vector<double> running_counts_;                    // [L,E] over the micro-batches of the step
  std::vector<double> pooled_counts_;                     // [E] sums over the layers, for the hf scope
  std::vector<double> pooled_f_, pooled_p_;               // [E] means over the layers, likewise
  std::vector<float> gradient_;                           // [L, N or 1, E]
  BalanceValues values_;
};

}  // namespace smoe
