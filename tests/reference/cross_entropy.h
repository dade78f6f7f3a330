// Cross-entropy over rows of logits, cut into column slices as a vocabulary over several owners is. target < 0: masked.
#pragma once

#include <algorithm>

#include "tests/reference/matrix.h"

namespace smoe::reference {

template <typename T>
struct CrossEntropyStatistics {
  std::vector<T> maxima;         // [N] largest logit of these columns
  std::vector<T> sums;           // [N] of exp(logit - maximum)
  std::vector<T> target_logits;  // [N] 0 where the target is masked or not in these columns
  std::vector<T> logit_sums;     // [N]
};

// logits [N, Vl] are columns [first, first + Vl) of the vocabulary.
template <typename T>
CrossEntropyStatistics<T> cross_entropy_statistics(const Matrix<T>& logits, const Ids& targets, Index first) {
  const std::vector<T> zeros(logits.rows);
  CrossEntropyStatistics<T> s{zeros, zeros, zeros, zeros};
  for (Index n = 0; n < logits.rows; ++n) {
    double maximum = real_part(logits(n, 0));
    for (Index v = 1; v < logits.cols; ++v) maximum = std::max(maximum, real_part(logits(n, v)));
    for (Index v = 0; v < logits.cols; ++v) s.sums[n] += std::exp(logits(n, v) - T(maximum));
    for (Index v = 0; v < logits.cols; ++v) s.logit_sums[n] += logits(n, v);
    s.maxima[n] = T(maximum);
    if (targets[n] >= first && targets[n] < first + logits.cols) s.target_logits[n] = logits(n, targets[n] - first);
  }
  return s;
}

template <typename T>
struct CrossEntropyLosses {
  std::vector<T> logsumexp;  // [N]
  std::vector<T> losses;     // [N] 0 where masked
};

template <typename T>
CrossEntropyLosses<T> cross_entropy_losses(const Ids& targets, const CrossEntropyStatistics<T>& s) {
  CrossEntropyLosses<T> out{std::vector<T>(targets.size()), std::vector<T>(targets.size())};
  for (std::size_t n = 0; n < targets.size(); ++n) {
    out.logsumexp[n] = s.maxima[n] + std::log(s.sums[n]);
    if (targets[n] >= 0) out.losses[n] = out.logsumexp[n] - s.target_logits[n];
  }
  return out;
}

// Of each row the mean over a vocabulary of so many columns of -log p: its cross-entropy to the uniform distribution, to
// which label smoothing gives a share e of the loss, (1 - e) losses + e uniform losses (Szegedy et al. 2016, section 7). 0 where
// masked.
template <typename T>
std::vector<T> uniform_losses(const Ids& targets, const CrossEntropyStatistics<T>& s, Index vocabulary) {
  std::vector<T> losses(targets.size());
  for (std::size_t n = 0; n < targets.size(); ++n)
    if (targets[n] >= 0) losses[n] = s.maxima[n] + std::log(s.sums[n]) - s.logit_sums[n] / T(double(vocabulary));
  return losses;
}

struct LabelSmoothing {
  double amount = 0;
  Index vocabulary = 1;
};

// scale * token_scale * (softmax - (1 - e) onehot(target) - e / vocabulary), e = smoothing.amount; a masked row is zero.
// token_scales [N]; empty: 1.
template <typename T>
Matrix<T> cross_entropy_backward(const Matrix<T>& logits, const Ids& targets, Index first,
                                 const std::vector<T>& logsumexp, double scale,
                                 const std::vector<double>& token_scales = {}, LabelSmoothing smoothing = {}) {
  Matrix<T> dlogits(logits.rows, logits.cols);
  for (Index n = 0; n < logits.rows; ++n) {
    if (targets[n] < 0) continue;
    const T factor(token_scales.empty() ? scale : scale * token_scales[n]);
    for (Index v = 0; v < logits.cols; ++v) {
      const T wanted((first + v == targets[n] ? 1 - smoothing.amount : 0) +
                     smoothing.amount / double(smoothing.vocabulary));
      dlogits(n, v) = factor * (std::exp(logits(n, v) - logsumexp[n]) - wanted);
    }
  }
  return dlogits;
}

}  // namespace smoe::reference
