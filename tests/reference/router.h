// The router: a score of every expert, the K best, their weights; and the balance statistics and losses that are made of
// its probabilities. Mixtral's rule (arXiv 2401.04088) is softmax over all experts, weights renormalised to sum to 1.
#pragma once

#include <algorithm>
#include <numeric>

#include "tests/reference/matrix.h"
#include "tests/reference/swiglu.h"

namespace smoe::reference {

enum class Score { softmax, sigmoid };  // over all experts, or of each expert alone (arXiv 2408.15664)

struct RoutingRule {
  Score score = Score::softmax;
  bool renormalise = true;  // weights are the chosen scores over their sum; otherwise the scores themselves
  double scale = 1;         // of the weights
};

template <typename T>
struct Routing {
  Matrix<T> probabilities;   // [T, E] the scores over their sum: rows sum to 1
  std::vector<T> logsumexp;  // [T] of the logits
  Matrix<std::int32_t>
      experts;        // [T, K], best first; the lowest index wins ties. -1: padding, which takes part in nothing below
  Matrix<T> weights;  // [T, K]
};

// Scores of the logits, times one factor: that which keeps the score of a logit of this size from vanishing.
template <typename T>
T scaled_score(Score score, const T& logit, double size) {
  if (score == Score::softmax) return std::exp(logit - T(size));
  return size > 0 ? sigmoid(logit) : std::exp(logit - T(size)) / (T(1) + std::exp(logit));
}

// A selection bias [E], or [T,E] of each token, is added to the scores for the choice of the experts, and to nothing else; empty:
// none.
inline double bias_of(const std::vector<double>& selection_bias, Index t, Index e, Index experts) {
  return selection_bias[selection_bias.size() == static_cast<std::size_t>(experts) ? e : t * experts + e];
}

template <typename T>
Routing<T> router_forward(const Matrix<T>& logits, Index top_k, const RoutingRule& rule = {},
                          const std::vector<double>& selection_bias = {}) {
  const Index tokens = logits.rows, E = logits.cols;
  Routing<T> r{Matrix<T>(tokens, E), std::vector<T>(tokens), Matrix<std::int32_t>(tokens, top_k),
               Matrix<T>(tokens, top_k)};
  for (Index t = 0; t < tokens; ++t) {
    double maximum = real_part(logits(t, 0));
    for (Index e = 1; e < E; ++e) maximum = std::max(maximum, real_part(logits(t, e)));
    T exponentials(0), total(0);
    for (Index e = 0; e < E; ++e) exponentials += std::exp(logits(t, e) - T(maximum));
    r.logsumexp[t] = std::log(exponentials) + T(maximum);
    for (Index e = 0; e < E; ++e) total += r.probabilities(t, e) = scaled_score(rule.score, logits(t, e), maximum);
    for (Index e = 0; e < E; ++e) r.probabilities(t, e) /= total;

    const auto score = [&](Index e) {
      return rule.score == Score::softmax ? r.probabilities(t, e) : sigmoid(logits(t, e));
    };
    const auto preference = [&](Index e) {
      return selection_bias.empty() ? real_part(logits(t, e)) : real_part(score(e)) + bias_of(selection_bias, t, e, E);
    };
    std::vector<std::int32_t> order(E);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return preference(a) > preference(b); });
    double largest = real_part(logits(t, order[0]));
    for (Index k = 1; k < top_k; ++k) largest = std::max(largest, real_part(logits(t, order[k])));
    T chosen(0);
    for (Index k = 0; k < top_k; ++k) chosen += scaled_score(rule.score, logits(t, order[k]), largest);
    for (Index k = 0; k < top_k; ++k) {
      r.experts(t, k) = order[k];
      r.weights(t, k) =
          T(rule.scale) *
          (rule.renormalise ? scaled_score(rule.score, logits(t, order[k]), largest) / chosen : score(order[k]));
    }
  }
  return r;
}

// dlogits from the three ways a logit reaches the loss:
//   the weights. Renormalised, w_k = scale * a_k with a_k = s_k / sum_j s_j over the chosen: dL/da_k = scale * dw_k, so
//     ds_k / s_k takes w_k * (dw_k - sum_j a_j dw_j); otherwise w_k * dw_k. A logit moves ln s of the softmax by
//     [k = e] - p_e, where what all s have in common cancels in a_k, and of the sigmoid by [k = e] * (1 - s_e);
//   the probabilities, dL/dp[t,e] = balance_gradient(t / (T/N), e): p_e * (g_e - sum_i g_i p_i), of the sigmoid times
//     (1 - s_e); [N,E], no rows: none;
//   the log-sum-exp, z_scale * d(lse^2)/dlogit = z_scale * 2 * lse * softmax_e.
template <typename T>
Matrix<T> router_backward(const Matrix<T>& logits, const Routing<T>& r, const Matrix<T>& dweights,
                          const Matrix<T>& balance_gradient, double z_scale, const RoutingRule& rule = {}) {
  const Index tokens = logits.rows, E = logits.cols, K = r.weights.cols;
  const bool softmax = rule.score == Score::softmax;
  Matrix<T> dlogits(tokens, E);
  for (Index t = 0; t < tokens; ++t) {
    if (r.experts(t, 0) < 0) continue;
    const auto through_score = [&](Index e) { return softmax ? T(1) : sigmoid(-logits(t, e)); };
    T all(0);
    for (Index k = 0; k < K; ++k) all += r.weights(t, k) * dweights(t, k);
    const T mean = rule.renormalise ? all / T(rule.scale) : T(0);
    for (Index k = 0; k < K; ++k)
      dlogits(t, r.experts(t, k)) += r.weights(t, k) * (dweights(t, k) - mean) * through_score(r.experts(t, k));
    if (softmax && !rule.renormalise)
      for (Index e = 0; e < E; ++e) dlogits(t, e) -= r.probabilities(t, e) * all;
    if (balance_gradient.rows > 0) {
      const Index group = t / (tokens / balance_gradient.rows);
      T expected(0);
      for (Index e = 0; e < E; ++e) expected += balance_gradient(group, e) * r.probabilities(t, e);
      for (Index e = 0; e < E; ++e)
        dlogits(t, e) += r.probabilities(t, e) * (balance_gradient(group, e) - expected) * through_score(e);
    }
    const Matrix<T> p =
        softmax ? row_range(r.probabilities, t, 1) : router_forward(row_range(logits, t, 1), 1).probabilities;
    for (Index e = 0; e < E; ++e) dlogits(t, e) += T(2 * z_scale) * r.logsumexp[t] * p(0, e);
  }
  return dlogits;
}

// Sums over N equal groups of consecutive tokens.
template <typename T>
struct BalanceStatistics {
  Matrix<double> counts;       // [N, E] assignments: constants for every derivative
  Matrix<T> probability_sums;  // [N, E]
  std::vector<T> z_sums;       // [N] of lse^2
};

template <typename T>
BalanceStatistics<T> balance_statistics(const Routing<T>& r, Index groups) {
  const Index tokens = r.probabilities.rows, E = r.probabilities.cols;
  BalanceStatistics<T> s{Matrix<double>(groups, E), Matrix<T>(groups, E), std::vector<T>(groups)};
  for (Index t = 0; t < tokens; ++t) {
    if (r.experts(t, 0) < 0) continue;
    const Index group = t / (tokens / groups);
    for (Index k = 0; k < r.experts.cols; ++k) s.counts(group, r.experts(t, k)) += 1;
    for (Index e = 0; e < E; ++e) s.probability_sums(group, e) += r.probabilities(t, e);
    s.z_sums[group] += r.logsumexp[t] * r.logsumexp[t];
  }
  return s;
}

// Sums over tokens: entropy of the probabilities in nats, L2 norm of the logits, and by how much the last that was chosen is
// ahead of the first that was not, in logits or, biased, in scores with the bias.
struct RouterMeasures {
  double entropy = 0, norm = 0, margin = 0;
  double largest = 0;  // of what is subtracted for the margin
};

inline RouterMeasures router_measures(const Matrix<double>& logits, const Routing<double>& r,
                                      const RoutingRule& rule = {}, const std::vector<double>& selection_bias = {}) {
  const Index tokens = logits.rows, E = logits.cols, K = r.experts.cols;
  RouterMeasures sums;
  for (Index t = 0; t < tokens; ++t) {
    if (r.experts(t, 0) < 0) continue;
    double squares = 0, next = -INFINITY;
    const auto preference = [&](Index e) {
      if (selection_bias.empty()) return logits(t, e);
      return (rule.score == Score::softmax ? r.probabilities(t, e) : sigmoid(logits(t, e))) +
             bias_of(selection_bias, t, e, E);
    };
    for (Index e = 0; e < E; ++e) {
      const double p = r.probabilities(t, e);
      if (p > 0) sums.entropy -= p * std::log(p);
      squares += logits(t, e) * logits(t, e);
      bool chosen = false;
      for (Index k = 0; k < K; ++k) chosen = chosen || r.experts(t, k) == e;
      if (!chosen) next = std::max(next, preference(e));
      sums.largest = std::max(sums.largest, std::abs(preference(e)));
    }
    sums.norm += std::sqrt(squares);
    if (K < E) sums.margin += preference(r.experts(t, K - 1)) - next;
  }
  return sums;
}

// sequence, micro_batch: sum over layers of B = E * sum_i f_i P_i with f and P taken over each sequence (B averaged over
// them) or over all tokens; a balanced layer scores 1. hf: the value of `transformers`, layers pooled before the product,
// k * E * sum_i mean_l(f_li) * mean_l(P_li); balance scores k. f: share of assignments, P: mean probability.
enum class BalanceScope { sequence, micro_batch, hf };

inline Index balance_groups(BalanceScope scope, Index sequences) {
  return scope == BalanceScope::sequence ? sequences : 1;
}

// layers: one statistics a layer, over balance_groups(...) groups of equal size.
template <typename T>
T balance_loss(BalanceScope scope, const std::vector<BalanceStatistics<T>>& layers, Index tokens, Index top_k) {
  const Index L = static_cast<Index>(layers.size()), N = layers[0].counts.rows, E = layers[0].counts.cols;
  const double per_group = double(tokens) / double(N);
  T loss(0);
  if (scope == BalanceScope::hf) {
    for (Index e = 0; e < E; ++e) {
      double share(0);
      T probability(0);
      for (const auto& layer : layers) {
        share += layer.counts(0, e) / (per_group * double(top_k)) / double(L);
        probability += layer.probability_sums(0, e) / T(per_group) / T(L);
      }
      loss += T(double(top_k * E) * share) * probability;
    }
    return loss;
  }
  for (const auto& layer : layers)
    for (Index g = 0; g < N; ++g)
      for (Index e = 0; e < E; ++e) {
        const double share = layer.counts(g, e) / (per_group * double(top_k));
        loss += T(double(E) * share / double(N)) * layer.probability_sums(g, e) / T(per_group);
      }
  return loss;
}

// dloss/dprobability of one token of group g for expert e, in `layer`: [N, E]. f is a constant.
template <typename T>
Matrix<T> balance_gradient(BalanceScope scope, const std::vector<BalanceStatistics<T>>& layers, Index layer,
                           Index tokens, Index top_k) {
  const Index L = static_cast<Index>(layers.size()), N = layers[0].counts.rows, E = layers[0].counts.cols;
  const double assignments = double(tokens) / double(N) * double(top_k);
  Matrix<T> gradient(N, E);
  for (Index g = 0; g < N; ++g)
    for (Index e = 0; e < E; ++e) {
      if (scope == BalanceScope::hf) {
        double share(0);
        for (const auto& other : layers) share += other.counts(0, e) / assignments / double(L);
        gradient(g, e) = T(double(top_k * E) * share / double(L * tokens));
      } else {
        gradient(g, e) = T(double(E) * layers[layer].counts(g, e) / assignments / double(tokens));
      }
    }
  return gradient;
}

}  // namespace smoe::reference
