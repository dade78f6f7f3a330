#include "model/balance_loss.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "parallel/token_split.h"

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
  own_counts_.resize(index(layers_ * experts_));
  pooled_f_.resize(index(experts_));
  pooled_p_.resize(index(experts_));
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z}) v->resize(index(layers_));
  values_.load.assign(index(layers_), std::vector<double>(index(experts_)));
}

// Sums over the world: for each layer counts [E], probability sums [E], the sum of lse^2, then the balance of each rank
// and of each sequence added up; after the layers, how many tokens, sequences and ranks with tokens there were.
struct BalanceLoss::Totals {
  std::vector<double>& numbers;
  std::int64_t layers, experts;

  static std::size_t numbers_of(std::int64_t layers, std::int64_t experts) { return index(layers * (2 * experts + 3) + 3); }

  double* layer(std::int64_t l) const { return numbers.data() + l * (2 * experts + 3); }
  double* counts(std::int64_t l) const { return layer(l); }
  double* probabilities(std::int64_t l) const { return layer(l) + experts; }
  double& z(std::int64_t l) const { return layer(l)[2 * experts]; }
  double& ranks_balance(std::int64_t l) const { return layer(l)[2 * experts + 1]; }
  double& sequences_balance(std::int64_t l) const { return layer(l)[2 * experts + 2]; }
  double& tokens() const { return layer(layers)[0]; }
  double& sequences() const { return layer(layers)[1]; }
  double& ranks() const { return layer(layers)[2]; }
};

RouterStatistics BalanceLoss::Statistics::layer(std::int64_t l) const {
  const std::int64_t runs = counts.dim(1), experts = counts.dim(2);
  return {counts.rows(l, 1).reshape({runs, experts}), probability_sums.rows(l, 1).reshape({runs, experts}), z_sums.rows(l, 1).reshape({runs})};
}

BalanceLoss::Statistics BalanceLoss::take_statistics(Context& context, std::int64_t sequences, std::int64_t sequence_length) const {
  const std::int64_t tokens = TokenSplit(context.mesh).local(sequences * sequence_length);
  const std::int64_t run = std::gcd(sequence_length, tokens), runs = std::max<std::int64_t>(1, tokens / run);
  Arena& arena = context.activations;
  return {arena.take({layers_, runs, experts_}), arena.take({layers_, runs, experts_}), arena.take({layers_, runs}),
          sequences, sequence_length, run};
}

void BalanceLoss::begin_step(std::int64_t micro_batches) {
  micro_batches_ = micro_batches;
  share_ = 1.0 / static_cast<double>(micro_batches);
  seen_ = 0;
  std::fill(running_counts_.begin(), running_counts_.end(), 0.0);
  for (auto* v : {&values_.micro_batch, &values_.global_batch, &values_.sequence, &values_.rank, &values_.z})
    std::fill(v->begin(), v->end(), 0.0);
  for (auto& layer : values_.load) std::fill(layer.begin(), layer.end(), 0.0);
  values_.hf = 0;
}

void BalanceLoss::micro_batch(Context& context, const Statistics& statistics, std::vector<RouterGradient>& gradients) {
  gather_runs(context, statistics);
  sum_own(context, statistics);
  measure();

  const double tokens = Totals{world_, layers_, experts_}.tokens();
  const double z_scale = router_.z_loss_coef / (tokens * static_cast<double>(micro_batches_));
  gradients.assign(index(layers_), RouterGradient{{}, z_scale});
  if (router_.aux_loss_coef == 0) return;
  fill_gradient(context, statistics);
  const std::int64_t groups = router_.aux_loss_scope == AuxLossScope::sequence ? statistics.counts.dim(1) : 1;
  const Tensor table = context.activations.take({layers_, groups, experts_});
  context.backend.copy_from_host(table, gradient_.data());
  for (std::int64_t l = 0; l < layers_; ++l) gradients[index(l)].balance = table.rows(l, 1).reshape({groups, experts_});
}

// To the host, and from runs to whole sequences.
void BalanceLoss::gather_runs(Context& context, const Statistics& statistics) {
  const std::int64_t runs = statistics.counts.dim(1), sequences = statistics.sequences;
  counts_.resize(index(layers_ * runs * experts_));
  probability_sums_.resize(counts_.size());
  z_sums_.resize(index(layers_ * runs));
  context.backend.copy_to_host(counts_.data(), statistics.counts);
  context.backend.copy_to_host(probability_sums_.data(), statistics.probability_sums);
  context.backend.copy_to_host(z_sums_.data(), statistics.z_sums);

  sequence_sums_.assign(index(layers_ * sequences * 2 * experts_), 0.0);
  const std::int64_t first = TokenSplit(context.mesh).first(sequences * statistics.sequence_length);
  for (std::int64_t l = 0; l < layers_ && sequences > 0; ++l)
    for (std::int64_t r = 0; r < runs; ++r) {
      const std::int64_t sequence = (first + r * statistics.run) / statistics.sequence_length;
      double* sums = sequence_sums_.data() + (l * sequences + sequence) * 2 * experts_;
      for (std::int64_t e = 0; e < experts_; ++e) {
        sums[e] += counts_[index((l * runs + r) * experts_ + e)];
        sums[experts_ + e] += probability_sums_[index((l * runs + r) * experts_ + e)];
      }
    }
  context.mesh.group(Axis::tp).all_reduce(std::span(sequence_sums_), Reduce::sum, "balance.sequences");
}

// This rank's terms of the totals, and the totals.
void BalanceLoss::sum_own(Context& context, const Statistics& statistics) {
  world_.assign(Totals::numbers_of(layers_, experts_), 0.0);
  const Totals totals{world_, layers_, experts_};
  const std::int64_t runs = statistics.counts.dim(1), sequences = statistics.sequences;
  const double tokens = static_cast<double>(TokenSplit(context.mesh).local(sequences * statistics.sequence_length));
  const double experts = static_cast<double>(experts_), k = static_cast<double>(experts_per_token_);
  const double length = static_cast<double>(statistics.sequence_length);
  const bool speaks_for_sequences = context.mesh.rank(Axis::tp) == 0;  // the tp group has them in common
  for (std::int64_t l = 0; l < layers_; ++l) {
    double by_rank = 0, by_sequence = 0;
    for (std::int64_t e = 0; e < experts_; ++e) {
      double count = 0, probability = 0;
      for (std::int64_t r = 0; r < runs; ++r) {
        count += counts_[index((l * runs + r) * experts_ + e)];
        probability += probability_sums_[index((l * runs + r) * experts_ + e)];
      }
      for (std::int64_t s = 0; s < sequences; ++s) {
        const double* sums = sequence_sums_.data() + (l * sequences + s) * 2 * experts_;
        by_sequence += sums[e] * sums[experts_ + e];
      }
      by_rank += count * probability;
      totals.counts(l)[e] = own_counts_[index(l * experts_ + e)] = count;
      totals.probabilities(l)[e] = probability;
    }
    for (std::int64_t r = 0; r < runs; ++r) totals.z(l) += z_sums_[index(l * runs + r)];
    if (tokens > 0) totals.ranks_balance(l) = experts / (k * tokens * tokens) * by_rank;
    if (speaks_for_sequences) totals.sequences_balance(l) = experts / (k * length * length) * by_sequence;
  }
  totals.tokens() = tokens;
  totals.sequences() = speaks_for_sequences ? static_cast<double>(sequences) : 0.0;
  totals.ranks() = tokens > 0 ? 1.0 : 0.0;
  context.mesh.group(Axis::world).all_reduce(std::span(world_), Reduce::sum, "balance.totals");
}

void BalanceLoss::measure() {
  ++seen_;
  const Totals totals{world_, layers_, experts_};
  const double share = share_, steps_so_far = static_cast<double>(seen_);
  const double tokens = totals.tokens(), k = static_cast<double>(experts_per_token_), experts = static_cast<double>(experts_);
  const double unit = experts / (k * tokens * tokens), layers = static_cast<double>(layers_);
  std::fill(pooled_f_.begin(), pooled_f_.end(), 0.0);
  std::fill(pooled_p_.begin(), pooled_p_.end(), 0.0);
  for (std::int64_t l = 0; l < layers_; ++l) {
    double by_batch = 0, running = 0;
    for (std::int64_t e = 0; e < experts_; ++e) {
      const double count = totals.counts(l)[e], probability = totals.probabilities(l)[e];
      double& running_count = running_counts_[index(l * experts_ + e)];
      running_count += count;
      by_batch += count * probability;
      running += running_count * probability;
      pooled_f_[index(e)] += count / (k * tokens * layers);
      pooled_p_[index(e)] += probability / (tokens * layers);
      values_.load[index(l)][index(e)] += share * count / (k * tokens);
    }
    values_.micro_batch[index(l)] += share * unit * by_batch;
    values_.global_batch[index(l)] += share * unit * running / steps_so_far;
    values_.rank[index(l)] += share * totals.ranks_balance(l) / totals.ranks();
    values_.sequence[index(l)] += share * totals.sequences_balance(l) / totals.sequences();
    values_.z[index(l)] += share * totals.z(l) / tokens;
  }
  for (std::int64_t e = 0; e < experts_; ++e) values_.hf += share * k * experts * pooled_f_[index(e)] * pooled_p_[index(e)];
}

// dL/dprobability[t,i] of the trained scope for this rank's tokens: E f_i / (tokens the mean runs over), times the
// coefficient. Summed over ranks, as all gradients are, that is the gradient of the global value.
void BalanceLoss::fill_gradient(Context& context, const Statistics& statistics) {
  const Totals totals{world_, layers_, experts_};
  const double tokens = totals.tokens(), k = static_cast<double>(experts_per_token_), experts = static_cast<double>(experts_);
  const double length = static_cast<double>(statistics.sequence_length), layers = static_cast<double>(layers_);
  const double coefficient = router_.aux_loss_coef / static_cast<double>(micro_batches_);
  const std::int64_t local = TokenSplit(context.mesh).local(statistics.sequences * statistics.sequence_length);
  const std::int64_t first = TokenSplit(context.mesh).first(statistics.sequences * statistics.sequence_length);
  const double own_tokens = static_cast<double>(local);
  const std::int64_t groups = router_.aux_loss_scope == AuxLossScope::sequence ? statistics.counts.dim(1) : 1;
  if (statistics.sequences == 0) return gradient_.assign(index(layers_ * groups * experts_), 0.0f);
  gradient_.resize(index(layers_ * groups * experts_));
  for (std::int64_t l = 0; l < layers_; ++l)
    for (std::int64_t g = 0; g < groups; ++g)
      for (std::int64_t e = 0; e < experts_; ++e) {
        double value = 0;
        switch (router_.aux_loss_scope) {
          case AuxLossScope::micro_batch: value = experts * totals.counts(l)[e] / (k * tokens) / tokens; break;
          case AuxLossScope::rank:
            value = experts * own_counts_[index(l * experts_ + e)] / (k * own_tokens) / own_tokens / totals.ranks();
            break;
          case AuxLossScope::global_batch:
            value = experts * running_counts_[index(l * experts_ + e)] / (k * tokens * static_cast<double>(seen_)) / tokens;
            break;
          case AuxLossScope::sequence: {
            const std::int64_t sequence = (first + g * statistics.run) / statistics.sequence_length;
            value = experts * sequence_sums_[index((l * statistics.sequences + sequence) * 2 * experts_ + e)] / (k * length) / tokens;
            break;
          }
          case AuxLossScope::hf: {
            double pooled = 0;
            for (std::int64_t m = 0; m < layers_; ++m) pooled += totals.counts(m)[e];
            value = k * experts * pooled / (k * tokens * layers) / (tokens * layers);
            break;
          }
        }
        gradient_[index((l * groups + g) * experts_ + e)] = static_cast<float>(coefficient * value);
      }
}

}  // namespace smoe
