// The whole reference Mixtral: embedding, layers, final norm, LM head, and the loss that is differentiated,
//   total = (1 - e) lm + e uniform + aux_coef * aux + z_coef * z, e = label_smoothing, or with sum over layers of aux_coefs * its
//           balance loss in the second's place,
//   lm  = sum of the weighted cross-entropies of the unmasked targets / batch.target_count, uniform the same of those to
//         the uniform distribution,
//   aux = balance_loss(config.scope) over all layers (router.h), z = sum over layers of mean_t(lse^2);
// with every parameter's gradient written by hand.
#pragma once

#include "tests/reference/cross_entropy.h"
#include "tests/reference/layer.h"

namespace smoe::reference {

template <typename T>
struct Losses {
  T lm, aux, z;  // aux and z before their coefficients
  T uniform;
  T total;
};

template <typename T>
struct ModelSaved {
  std::vector<LayerSaved<T>> layers;
  std::vector<BalanceStatistics<T>> balance;  // one a layer
  Matrix<T> hidden;                           // what enters the final norm
  RmsNorm<T> norm;
  Matrix<T> logits;  // [T, V]
  CrossEntropyLosses<T> cross_entropy;
};

// Added to the weight's rows, which it does not depend on: the backward knows nothing of it.
template <typename T>
void add_embedding_noise(const ReferenceConfig& c, const Batch& batch, Matrix<T>& x) {
  if (c.neftune_alpha == 0) return;
  const Matrix<double> noise =
      embedding_noise(batch.noise_key, c.neftune_alpha, batch.document_start, x.rows, batch.sequence_length, x.cols);
  for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += T(noise.values[i]);
}

template <typename T>
Losses<T> model_forward(const ReferenceConfig& c, const Parameters<T>& p, const Batch& batch, ModelSaved<T>& s) {
  const Index tokens = batch.sequences * batch.sequence_length;
  s.layers.resize(c.layers);
  s.balance.clear();
  Losses<T> losses{};
  s.hidden = embedding_forward(batch.tokens, p.embed);
  add_embedding_noise(c, batch, s.hidden);
  for (Index n = 0; n < c.layers; ++n) {
    s.hidden = layer_forward(c, p.layers[n], s.hidden, batch, s.layers[n], n);
    s.balance.push_back(balance_statistics(s.layers[n].routing, balance_groups(c.scope, batch.sequences)));
    losses.z += sum(s.balance.back().z_sums) / T(tokens);
  }
  s.norm = rms_norm_forward(s.hidden, p.norm, c.eps);
  s.logits = linear_forward(s.norm.y, p.lm_head);
  const auto statistics = cross_entropy_statistics(s.logits, batch.targets, 0);
  s.cross_entropy = cross_entropy_losses(batch.targets, statistics);
  const std::vector<T> uniform = uniform_losses(batch.targets, statistics, c.vocab);
  for (std::size_t t = 0; t < s.cross_entropy.losses.size(); ++t) {
    const T weight(batch.weights.empty() ? 1.0 : batch.weights[t]);
    losses.lm += s.cross_entropy.losses[t] * weight;
    losses.uniform += uniform[t] * weight;
  }
  losses.lm /= T(batch.target_count);
  losses.uniform /= T(batch.target_count);
  losses.aux = balance_loss(c.scope, s.balance, tokens, c.top_k);
  T weighted = T(c.aux_coef) * losses.aux;
  if (!c.aux_coefs.empty()) {
    weighted = T(0);
    for (Index n = 0; n < c.layers; ++n)
      weighted += T(c.aux_coefs[n]) * balance_loss(c.scope, std::vector{s.balance[n]}, tokens, c.top_k);
  }
  const T trained = T(1 - c.label_smoothing) * losses.lm + T(c.label_smoothing) * losses.uniform;
  losses.total = trained + weighted + T(c.z_coef) * losses.z;
  return losses;
}

// d total / d parameters, added to gradients.
template <typename T>
void model_backward(const ReferenceConfig& c, const Parameters<T>& p, const Batch& batch, const ModelSaved<T>& s,
                    Parameters<T>& gradients /* += */) {
  const Index tokens = batch.sequences * batch.sequence_length;
  const Matrix<T> dlogits =
      cross_entropy_backward(s.logits, batch.targets, 0, s.cross_entropy.logsumexp, 1.0 / batch.target_count,
                             batch.weights, {c.label_smoothing, c.vocab});
  const Matrix<T> dnorm = linear_backward(dlogits, s.norm.y, p.lm_head, gradients.lm_head);
  const Matrix<T> no_residual(tokens, c.hidden);
  Matrix<T> dx = rms_norm_backward(dnorm, s.hidden, p.norm, s.norm.rstd, no_residual, gradients.norm);
  for (Index n = c.layers - 1; n >= 0; --n) {
    Matrix<T> balance = balance_gradient(c.scope, s.balance, n, tokens, c.top_k);
    for (T& value : balance.values) value *= T(c.aux_coef_of(n));
    dx =
        layer_backward(c, p.layers[n], batch, s.layers[n], dx, balance, c.z_coef / double(tokens), gradients.layers[n]);
  }
  embedding_backward(batch.tokens, dx, gradients.embed);
}

}  // namespace smoe::reference
