#include "model/balance_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "model/balance_schedule.h"
#include "model/balance_scopes.h"
#include "parallel/token_split.h"

namespace smoe {
namespace {
double total(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }
std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// Null: it has one value for all layers.
const std::vector<double>* values_by_layer(const BalanceValues& values, AuxLossScope scope) {
  switch (scope) {
    case AuxLossScope::micro_batch: return &values.micro_batch;
    case AuxLossScope::global_batch: return &values.global_batch;
    case AuxLossScope::sequence: return &values.sequence;
    case AuxLossScope::rank: return &values.rank;
    case AuxLossScope::hf: return nullptr;
  }
  return nullptr;
}
}  // namespace

double BalanceValues::trained(AuxLossScope scope) const {
  const std::vector<double>* by_layer = values_by_layer(*this, scope);
  return by_layer ? total(*by_layer) : hf;
}

double BalanceValues::weighted(AuxLossScope scope, const std::vector<double>& coefficients) const {
  const std::vector<double>* by_layer = values_by_layer(*this, scope);
  const double first = coefficients.front();
  const bool alike = std::all_of(coefficients.begin(), coefficients.end(), [&](double c) { return c == first; });
  if (!by_layer || alike) return first * trained(scope);
  return std::inner_product(coefficients.begin(), coefficients.end(), by_layer->begin(), 0.0);
}

double BalanceValues::z_total() const { return total(z); }

BalanceLoss::BalanceLoss(const ModelConfig& model, const RouterConfig& router)
    : layers_(model.num_hidden_layers),
      experts_(model.num_local_experts),
      experts_per_token_(model.num_experts_per_tok),
      router_(router),
      coefficients_(index(layers_)) {
  weigh_layers(1);
  world_.resize(index(BalanceTotals::size(layers_, experts_)));
  for (auto* v : {&running_counts_, &own_counts_}) v->resize(index(layers_ * experts_));
  for (auto* v : {&pooled_counts_, &pooled_f_, &pooled_p_}) v->resize(index(experts_));
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z})
    v->resize(index(layers_));
  for (auto* v : {&values_.load, &values_.probability}) v->assign(index(layers_), std::vector<double>(index(experts_)));
}

void BalanceLoss::weigh_layers(std::int64_t step, double factor) {
  balance_coefficients(router_, step, coefficients_);
  if (factor == 1) return;
  for (double& coefficient : coefficients_) coefficient *= factor;
}

RouterStatistics BalanceLoss::Statistics::layer(std::int64_t l) const {
  const std::int64_t runs = counts.dim(1), experts = counts.dim(2);
  return {counts.rows(l, 1).reshape({runs, experts}), probability_sums.rows(l, 1).reshape({runs, experts}),
          z_sums.rows(l, 1).reshape({runs}), measures.empty() ? Tensor() : measures.rows(l, 1).reshape({3})};
}

BalanceLoss::Statistics BalanceLoss::take_statistics(Context& context, std::int64_t sequences,
                                                     std::int64_t sequence_length) const {
  const TokenSplit split(context.mesh);
  const std::int64_t all = sequences * sequence_length, tokens = split.local(all);
  const std::int64_t run = split.run(sequences, sequence_length), runs = std::max<std::int64_t>(1, tokens / run);
  Arena& arena = context.activations;
  return {arena.take({layers_, runs, experts_}),
          arena.take({layers_, runs, experts_}),
          arena.take({layers_, runs}),
          sequences,
          sequence_length,
          tokens,
          split.first(all),
          run};
}

BalanceLoss::Statistics BalanceLoss::take_statistics(Context& context, const TokenBatch& batch) const {
  Statistics statistics = take_statistics(context, batch.sequences, batch.sequence_length);
  if (!batch.has_padding()) return statistics;
  statistics.padded_ids = batch.padded_ids;
  const std::int64_t first = statistics.first, behind = first + std::exchange(statistics.tokens, 0);
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    const std::int64_t begin = std::max(first, s * batch.sequence_length),
                       end = std::min(behind, s * batch.sequence_length + batch.length_of(s));
    statistics.tokens += std::max<std::int64_t>(0, end - begin);
  }
  return statistics;
}

void BalanceLoss::begin_step(std::int64_t micro_batches) {
  begin_step(StepSize{});
  micro_batches_ = micro_batches;
}

void BalanceLoss::begin_step(const StepSize& size) {
  micro_batches_ = 0;
  step_size_ = size;
  seen_ = 0;
  std::fill(running_counts_.begin(), running_counts_.end(), 0.0);
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z})
    std::fill(v->begin(), v->end(), 0.0);
  for (auto* v : {&values_.load, &values_.probability})
    for (auto& layer : *v) std::fill(layer.begin(), layer.end(), 0.0);
  values_.hf = 0;
}

double BalanceLoss::of_its_like(double size, double StepSize::*all) const {
  return micro_batches_ > 0 ? static_cast<double>(micro_batches_) : step_size_.*all / size;
}

void BalanceLoss::add_micro_batch(Context& context, const Statistics& statistics,
                                  std::vector<RouterGradient>& gradients) {
  gather_runs(context, statistics);
  const BalanceTotals t(world_, layers_, experts_, experts_per_token_);
  sum_own(context, statistics, t);
  gradients.assign(index(layers_), RouterGradient{});
  if (t.tokens() == 0) return;  // nothing but padding, on all ranks
  const double steps = of_its_like(t.tokens(), &StepSize::tokens), share = 1.0 / steps,
               steps_of_sequences = of_its_like(t.sequences(), &StepSize::sequences);
  add_counts(t, share);
  const MicroBatchScope micro_batch{t};
  const GlobalBatchScope global_batch{t, running_counts_, seen_ / t.tokens()};
  const SequenceScope sequence{
      t, sequence_sums_, lengths_, statistics.sequence_length, statistics.first, statistics.run};
  const RankScope rank{t, own_counts_, static_cast<double>(statistics.tokens)};
  const HfScope hf{t, pooled_f_, pooled_p_, pooled_counts_};

  for (std::int64_t l = 0; l < layers_; ++l) {
    values_.micro_batch[index(l)] += micro_batch.value(share, l);
    values_.global_batch[index(l)] += global_batch.value(share, l);
    values_.sequence[index(l)] += sequence.value(1.0 / steps_of_sequences, l);
    values_.rank[index(l)] += rank.value(share, l);
    values_.z[index(l)] += share * t.z(l) / t.tokens();
  }
  for (std::size_t i = 0; i < index(experts_); ++i) values_.hf += hf.term(share, i);

  for (RouterGradient& gradient : gradients) gradient.z_scale = router_.z_loss_coef / (t.tokens() * steps);
  if (!trains_balance(router_)) return;
  const auto differentiate = [&](const auto& scope, std::int64_t runs, double of_step) {
    gradient_.assign(index(layers_ * runs * experts_), 0.0f);  // stays so where this rank has no tokens
    for (std::int64_t at = 0; at < layers_ * runs && statistics.tokens > 0; ++at) {
      const double coefficient = coefficients_[index(at / runs)] / of_step;
      // A token's probabilities sum to 1, so that what all experts have in common moves nothing but last bits. It is left out,
      // and where loads are even the gradient is exactly zero.
      double common = INFINITY;
      for (std::size_t i = 0; i < index(experts_); ++i)
        common = std::min(common, scope.gradient(at / runs, at % runs, i));
      for (std::size_t i = 0; i < index(experts_); ++i)
        gradient_[index(at * experts_) + i] =
            static_cast<float>(coefficient * (scope.gradient(at / runs, at % runs, i) - common));
    }
    const Tensor table = context.activations.take({layers_, runs, experts_});
    context.backend.copy_from_host(table, gradient_.data());
    for (std::int64_t l = 0; l < layers_; ++l) gradients[index(l)].balance = table.rows(l, 1).reshape({runs, experts_});
  };
  switch (router_.aux_loss_scope) {
    case AuxLossScope::micro_batch: return differentiate(micro_batch, 1, steps);
    case AuxLossScope::global_batch: return differentiate(global_batch, 1, steps);
    case AuxLossScope::sequence: return differentiate(sequence, statistics.counts.dim(1), steps_of_sequences);
    case AuxLossScope::rank: return differentiate(rank, 1, steps);
    case AuxLossScope::hf: return differentiate(hf, 1, steps);
  }
}

// To the host, and from runs to whole sequences.
void BalanceLoss::gather_runs(Context& context, const Statistics& statistics) {
  const std::int64_t runs = statistics.counts.dim(1), sequences = statistics.sequences;
  counts_.start_fetch(context.backend, statistics.counts);
  probability_sums_.start_fetch(context.backend, statistics.probability_sums);
  z_sums_.start_fetch(context.backend, statistics.z_sums);
  context.backend.wait(context.backend.record());  // for all three at once
  const std::span<const float> counts = counts_.numbers(), probability_sums = probability_sums_.numbers();

  lengths_.assign(index(sequences), static_cast<double>(statistics.sequence_length));
  for (std::size_t i = 0; i < lengths_.size() && !statistics.padded_ids.empty(); ++i)
    lengths_[i] = static_cast<double>(tokens_before_padding(
        statistics.padded_ids.subspan(i * index(statistics.sequence_length), index(statistics.sequence_length))));
  sequence_sums_.assign(index(layers_ * sequences * 2 * experts_), 0.0);
  for (std::int64_t l = 0; l < layers_ && sequences > 0; ++l)
    for (std::int64_t r = 0; r < runs; ++r) {
      const std::int64_t sequence = (statistics.first + r * statistics.run) / statistics.sequence_length;
      double* sums = sequence_sums_.data() + (l * sequences + sequence) * 2 * experts_;
      for (std::int64_t e = 0; e < experts_; ++e) {
        sums[e] += counts[index((l * runs + r) * experts_ + e)];
        sums[experts_ + e] += probability_sums[index((l * runs + r) * experts_ + e)];
      }
    }
  context.mesh.group(Axis::tp).all_reduce(std::span(sequence_sums_), Reduce::sum, "balance.sequences");
}

// This rank's terms of the totals, and the totals.
void BalanceLoss::sum_own(Context& context, const Statistics& statistics, const BalanceTotals& t) {
  std::fill(world_.begin(), world_.end(), 0.0);
  const std::int64_t runs = statistics.counts.dim(1), sequences = statistics.sequences;
  const std::span<const float> counts = counts_.numbers(), probability_sums = probability_sums_.numbers(),
                               z_sums = z_sums_.numbers();
  const double tokens = static_cast<double>(statistics.tokens),
               length = static_cast<double>(statistics.sequence_length);
  const bool speaks_for_sequences = context.mesh.rank(Axis::tp) == 0;  // the tp group has them in common
  for (std::int64_t l = 0; l < layers_; ++l) {
    double by_sequence = 0;
    for (std::int64_t e = 0; e < experts_; ++e) {
      for (std::int64_t r = 0; r < runs; ++r) {
        t.counts(l)[index(e)] += counts[index((l * runs + r) * experts_ + e)];
        t.probabilities(l)[index(e)] += probability_sums[index((l * runs + r) * experts_ + e)];
      }
      for (std::int64_t s = 0; s < sequences; ++s) {
        const double* sums = sequence_sums_.data() + (l * sequences + s) * 2 * experts_;
        // In the unit of a whole sequence, which all share but those with padding.
        const double ratio = lengths_[index(s)] > 0 ? length / lengths_[index(s)] : 0;
        by_sequence += ratio * ratio * sums[e] * sums[experts_ + e];
      }
    }
    std::copy_n(t.counts(l).begin(), experts_, own_counts_.begin() + l * experts_);
    for (std::int64_t r = 0; r < runs; ++r) t.z(l) += z_sums[index(l * runs + r)];
    if (tokens > 0) t.ranks_balance(l) = t.unit(tokens) * t.dot(t.counts(l), t.probabilities(l));
    if (speaks_for_sequences) t.sequences_balance(l) = t.unit(length) * by_sequence;
  }
  t.tokens() = tokens;
  if (speaks_for_sequences)
    t.sequences() = static_cast<double>(
        std::count_if(lengths_.begin(), lengths_.end(), [](double tokens_of_it) { return tokens_of_it > 0; }));
  t.ranks() = tokens > 0 ? 1.0 : 0.0;
  context.mesh.group(Axis::world).all_reduce(t.numbers, Reduce::sum, "balance.totals");
}

// What is kept beside the totals: counts over the step so far, means and sums over the layers, and the load.
void BalanceLoss::add_counts(const BalanceTotals& t, double share) {
  seen_ += t.tokens();
  for (auto* v : {&pooled_counts_, &pooled_f_, &pooled_p_}) std::fill(v->begin(), v->end(), 0.0);
  for (std::int64_t l = 0; l < layers_; ++l)
    for (std::size_t i = 0; i < index(experts_); ++i) {
      const double count = t.counts(l)[i];
      running_counts_[index(l * experts_) + i] += count;
      pooled_counts_[i] += count;
      pooled_f_[i] += count / (t.K * t.tokens() * t.L);
      pooled_p_[i] += t.probabilities(l)[i] / (t.tokens() * t.L);
      values_.load[index(l)][i] += share * count / (t.K * t.tokens());
      values_.probability[index(l)][i] += share * t.probabilities(l)[i] / t.tokens();
    }
}

}  // namespace smoe
