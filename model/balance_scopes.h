// The scopes of the balance loss B = E sum_i f_i P_i (balance_loss.h), each from the sums of one micro-batch:
//   value(share, l)     share * B of layer l, over the whole world
//   gradient(l, r, i)   this rank's dB/dprobability of expert i for every token of its run r: E f_i / (tokens in the mean P).
//                       Summed over ranks, as all gradients are, that is the gradient of the global value.
// T tokens, E experts, K experts per token, L layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

namespace smoe {

// Sums over the world, in one row of numbers that one all-reduce completes: for each layer counts [E], probability sums
// [E], the sum of lse^2, then the balance of each rank and of each sequence added up; after the layers, how many tokens,
// sequences and ranks with tokens there were.
struct BalanceTotals {
  std::span<double> numbers;
  std::int64_t layers, experts;
  double L, E, K;

  BalanceTotals(std::span<double> numbers, std::int64_t layers, std::int64_t experts, std::int64_t experts_per_token)
      : numbers(numbers),
        layers(layers),
        experts(experts),
        L(static_cast<double>(layers)),
        E(static_cast<double>(experts)),
        K(static_cast<double>(experts_per_token)) {}
  static std::int64_t size(std::int64_t layers, std::int64_t experts) { return layers * (2 * experts + 3) + 3; }

  std::span<double> counts(std::int64_t l) const { return part(l, 0, experts); }
  std::span<double> probabilities(std::int64_t l) const { return part(l, experts, experts); }
  double& z(std::int64_t l) const { return part(l, 2 * experts, 1)[0]; }
  double& ranks_balance(std::int64_t l) const { return part(l, 2 * experts + 1, 1)[0]; }
  double& sequences_balance(std::int64_t l) const { return part(l, 2 * experts + 2, 1)[0]; }
  double& tokens() const { return part(layers, 0, 1)[0]; }
  double& sequences() const { return part(layers, 1, 1)[0]; }
  double& ranks() const { return part(layers, 2, 1)[0]; }

  // Of sums over a group of tokens, E sum_i f_i P_i = unit(tokens of the group) * dot(counts, probabilities).
  double unit(double group) const { return E / (K * group * group); }
  static double dot(std::span<const double> a, std::span<const double> b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  }

 private:
  std::span<double> part(std::int64_t l, std::int64_t first, std::int64_t count) const {
    return numbers.subspan(static_cast<std::size_t>(l * (2 * experts + 3) + first), static_cast<std::size_t>(count));
  }
};

struct MicroBatchScope {
  const BalanceTotals& t;
  double value(double share, std::int64_t l) const {
    return share * t.unit(t.tokens()) * t.dot(t.counts(l), t.probabilities(l));
  }
  double gradient(std::int64_t l, std::int64_t, std::size_t i) const {
    return t.E * t.counts(l)[i] / (t.K * t.tokens()) / t.tokens();
  }
};

struct GlobalBatchScope {
  const BalanceTotals& t;
  std::span<const double> running;  // [L,E] counts over the micro-batches of the step so far
  double seen;  // how many of this one's tokens those have: of micro-batches that are alike, how many they are
  std::span<const double> counts(std::int64_t l) const {
    return running.subspan(static_cast<std::size_t>(l * t.experts), static_cast<std::size_t>(t.experts));
  }
  double value(double share, std::int64_t l) const {
    return share * t.unit(t.tokens()) * t.dot(counts(l), t.probabilities(l)) / seen;
  }
  double gradient(std::int64_t l, std::int64_t, std::size_t i) const {
    return t.E * counts(l)[i] / (t.K * t.tokens() * seen) / t.tokens();
  }
};

struct SequenceScope {
  const BalanceTotals& t;
  std::span<const double> sums;     // [L,B,2E] counts and probabilities of each sequence of the tp group
  std::span<const double> lengths;  // [B] tokens of each
  std::int64_t length;              // of each, with its padding
  std::int64_t first, run;  // this rank's first token among those of the tp group, and the tokens of each of its runs
  double value(double share, std::int64_t l) const { return share * t.sequences_balance(l) / t.sequences(); }
  double gradient(std::int64_t l, std::int64_t r, std::size_t i) const {
    const auto s = static_cast<std::size_t>((first + r * run) / length);
    const double tokens = lengths[s];
    if (tokens == 0) return 0;
    const std::size_t row = static_cast<std::size_t>(l) * lengths.size() + s;
    return t.E * sums[row * 2 * static_cast<std::size_t>(t.experts) + i] / (t.K * tokens) / (tokens * t.sequences());
  }
};

struct RankScope {
  const BalanceTotals& t;
  std::span<const double> counts;  // [L,E] of this rank
  double tokens;                   // of this rank
  double value(double share, std::int64_t l) const { return share * t.ranks_balance(l) / t.ranks(); }
  double gradient(std::int64_t l, std::int64_t, std::size_t i) const {
    return t.E * counts[static_cast<std::size_t>(l * t.experts) + i] / (t.K * tokens) / tokens / t.ranks();
  }
};

// Layers are pooled, so that its terms are of experts.
struct HfScope {
  const BalanceTotals& t;
  std::span<const double> f, p;    // [E] means over the layers
  std::span<const double> counts;  // [E] sums over the layers
  double term(double share, std::size_t i) const { return share * t.K * t.E * f[i] * p[i]; }
  double gradient(std::int64_t, std::int64_t, std::size_t i) const {
    return t.K * t.E * counts[i] / (t.K * t.tokens() * t.L) / (t.tokens() * t.L);
  }
};

}  // namespace smoe
