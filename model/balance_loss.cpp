#include "model/balance_loss.h"

#include <algorithm>
#include <numeric>

namespace smoe {
namespace {
double total(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }
std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
}  // namespace

double BalanceValues::trained(AuxLossScope scope) const {
  switch (scope) {
    case AuxLossScope::micro_batch: return total(micro_batch);
    case AuxLossScope::global_batch: return total(global_batch);
    case AuxLossScope::sequence: return total(sequence);
    case AuxLossScope::rank: return total(rank);
    case AuxLossScope::hf: return hf;
  }
  return 0;
}

double BalanceValues::z_total() const { return total(z); }

BalanceLoss::BalanceLoss(const ModelConfig& model, const RouterConfig& router)
    : layers_(model.num_hidden_layers), experts_(model.num_local_experts), experts_per_token_(model.num_experts_per_tok), router_(router) {
  running_counts_.resize(index(layers_ * experts_));
  batch_counts_.resize(index(layers_ * experts_));
  batch_probability_.resize(index(layers_ * experts_));
  pooled_f_.resize(index(experts_));
  pooled_p_.resize(index(experts_));
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z}) v->resize(index(layers_));
  values_.load.assign(index(layers_), std::vector<double>(index(experts_)));
}

RouterStatistics BalanceLoss::Statistics::layer(std::int64_t l) const {
  const std::int64_t groups = counts.dim(1), experts = counts.dim(2);
  return {counts.rows(l, 1).reshape({groups, experts}), probability_sums.rows(l, 1).reshape({groups, experts}),
          z_sums.rows(l, 1).reshape({groups})};
}

BalanceLoss::Statistics BalanceLoss::take_statistics(Arena& arena, std::int64_t sequences) const {
  return {arena.take({layers_, sequences, experts_}), arena.take({layers_, sequences, experts_}), arena.take({layers_, sequences})};
}

void BalanceLoss::begin_step(std::int64_t micro_batches) {
  micro_batches_ = micro_batches;
  seen_ = 0;
  std::fill(running_counts_.begin(), running_counts_.end(), 0.0);
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z})
    std::fill(v->begin(), v->end(), 0.0);
  for (auto& layer : values_.load) std::fill(layer.begin(), layer.end(), 0.0);
  values_.hf = 0;
}

double BalanceLoss::at(const std::vector<float>& table, std::int64_t layer, std::int64_t group, std::int64_t expert,
                       std::int64_t groups) const {
  return table[index((layer * groups + group) * experts_ + expert)];
}

void BalanceLoss::micro_batch(Context& context, const Statistics& statistics, std::int64_t sequence_length, Arena& arena,
                              std::vector<RouterGradient>& gradients) {
  const std::int64_t sequences = statistics.counts.dim(1);
  counts_.resize(index(layers_ * sequences * experts_));
  probability_sums_.resize(counts_.size());
  z_sums_.resize(index(layers_ * sequences));
  context.backend.copy_to_host(counts_.data(), statistics.counts);
  context.backend.copy_to_host(probability_sums_.data(), statistics.probability_sums);
  context.backend.copy_to_host(z_sums_.data(), statistics.z_sums);
  measure(sequences, sequence_length);

  const double tokens = static_cast<double>(sequences * sequence_length);
  const double z_scale = router_.z_loss_coef / (tokens * static_cast<double>(micro_batches_));
  gradients.assign(index(layers_), RouterGradient{{}, z_scale});
  if (router_.aux_loss_coef == 0) return;
  fill_gradient(sequences, sequence_length);
  const std::int64_t groups = router_.aux_loss_scope == AuxLossScope::sequence ? sequences : 1;
  const Tensor table = arena.take({layers_, groups, experts_});
  context.backend.copy_from_host(table, gradient_.data());
  for (std::int64_t l = 0; l < layers_; ++l) gradients[index(l)].balance = table.rows(l, 1).reshape({groups, experts_});
}

void BalanceLoss::measure(std::int64_t sequences, std::int64_t sequence_length) {
  ++seen_;
  const double share = 1.0 / static_cast<double>(micro_batches_);
  const double tokens = static_cast<double>(sequences * sequence_length), k = static_cast<double>(experts_per_token_);
  const double experts = static_cast<double>(experts_), steps_so_far = static_cast<double>(seen_);
  std::fill(pooled_f_.begin(), pooled_f_.end(), 0.0);
  std::fill(pooled_p_.begin(), pooled_p_.end(), 0.0);
  for (std::int64_t l = 0; l < layers_; ++l) {
    double by_batch = 0, by_sequence = 0, running = 0, z = 0;
    for (std::int64_t e = 0; e < experts_; ++e) {
      double count = 0, probability = 0;
      for (std::int64_t s = 0; s < sequences; ++s) {
        const double c = at(counts_, l, s, e, sequences), p = at(probability_sums_, l, s, e, sequences);
        by_sequence += c * p;
        count += c;
        probability += p;
      }
      const std::size_t i = index(l * experts_ + e);
      batch_counts_[i] = count;
      batch_probability_[i] = probability;
      running_counts_[i] += count;
      by_batch += count * probability;
      running += running_counts_[i] * probability;
      pooled_f_[index(e)] += count / (k * tokens * static_cast<double>(layers_));
      pooled_p_[index(e)] += probability / (tokens * static_cast<double>(layers_));
      values_.load[index(l)][index(e)] += share * count / (k * tokens);
    }
    for (std::int64_t s = 0; s < sequences; ++s) z += z_sums_[index(l * sequences + s)];
    const double unit = experts / (k * tokens * tokens);
    const double length = static_cast<double>(sequence_length);
    values_.micro_batch[index(l)] += share * unit * by_batch;
    values_.rank[index(l)] += share * unit * by_batch;
    values_.global_batch[index(l)] += share * unit * running / steps_so_far;
    values_.sequence[index(l)] += share * experts / (k * length * length * static_cast<double>(sequences)) * by_sequence;
    values_.z[index(l)] += share * z / tokens;
  }
  for (std::int64_t e = 0; e < experts_; ++e) values_.hf += share * k * experts * pooled_f_[index(e)] * pooled_p_[index(e)];
}

// dL/dprobability[t,i] of the trained scope: E f_i / (tokens the mean runs over), times the coefficient.
void BalanceLoss::fill_gradient(std::int64_t sequences, std::int64_t sequence_length) {
  const double tokens = static_cast<double>(sequences * sequence_length), k = static_cast<double>(experts_per_token_);
  const double experts = static_cast<double>(experts_), length = static_cast<double>(sequence_length);
  const double coefficient = router_.aux_loss_coef / static_cast<double>(micro_batches_);
  const bool by_sequence = router_.aux_loss_scope == AuxLossScope::sequence;
  const std::int64_t groups = by_sequence ? sequences : 1;
  gradient_.resize(index(layers_ * groups * experts_));
  for (std::int64_t l = 0; l < layers_; ++l)
    for (std::int64_t g = 0; g < groups; ++g)
      for (std::int64_t e = 0; e < experts_; ++e) {
        const std::size_t i = index(l * experts_ + e);
        double value = 0;
        switch (router_.aux_loss_scope) {
          case AuxLossScope::micro_batch:
          case AuxLossScope::rank: value = experts * batch_counts_[i] / (k * tokens) / tokens; break;
          case AuxLossScope::global_batch:
            value = experts * running_counts_[i] / (k * tokens * static_cast<double>(seen_)) / tokens;
            break;
          case AuxLossScope::sequence: value = experts * at(counts_, l, g, e, sequences) / (k * length) / tokens; break;
          case AuxLossScope::hf: {
            double pooled = 0;
            for (std::int64_t m = 0; m < layers_; ++m) pooled += batch_counts_[index(m * experts_ + e)];
            const double all = tokens * static_cast<double>(layers_);
            value = k * experts * pooled / (k * all) / all;
            break;
          }
        }
        gradient_[index((l * groups + g) * experts_ + e)] = static_cast<float>(coefficient * value);
      }
}

}  // namespace smoe
