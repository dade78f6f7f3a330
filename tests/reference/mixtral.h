// The whole reference Mixtral: embedding, layers, final norm, LM head, and the loss that is differentiated,
//   total = lm + aux_coef * aux + z_coef * z, or with sum over layers of aux_coefs * its balance loss in the second's place,
//   lm  = sum of the weighted cross-entropies of the unmasked targets / batch.target_count,
//   aux = balance_loss(config.scope) over all layers (router.h), z = sum over layers of mean_t(lse^2);
// with every parameter's gradient written by hand.
#pragma once

#include "tests/reference/cross_entropy.h"
#include "tests/reference/layer.h"

namespace smoe::reference {

template <typename T>
struct Losses {
  T lm, aux, z;  // aux and z before their coefficients
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

template <typename T>
Losses<T> model_forward(const ReferenceConfig& c, const Parameters<T>& p, const Batch& batch, ModelSaved<T>& s) {
  const Index tokens = batch.sequences * batch.sequence_length;
  s.layers.resize(c.layers);
  s.balance.clear();
  Losses<T> losses{};
  s.hidden = embedding_forward(batch.tokens, p.embed);
  for (Index n = 0; n < c.layers; ++n) {
    s.hidden = layer_forward(c, p.layers[n], s.hidden, batch, s.layers[n], n);
    s.balance.push_back(balance_statistics(s.layers[n].routing, balance_groups(c.scope, batch.sequences)));
    losses.z += sum(s.balance.back().z_sums) / T(tokens);
  }
  s.norm = rms_norm_forward(s.hidden, p.norm, c.eps);
  s.logits = linear_forward(s.norm.y, p.lm_head);
  s.cross_entropy = cross_entropy_losses(batch.targets, cross_entropy_statistics(s.logits, batch.targets, 0));
  for (std::size_t t = 0; t < s.cross_entropy.losses.size(); ++t)
    losses.lm += s.cross_entropy.losses[t] * T(batch.weights.empty() ? 1.0 : batch.weights[t]);
  losses.lm /= T(batch.target_count);
  losses.aux = balance_loss(c.scope, s.balance, tokens, c.top_k);
  T weighted = T(c.aux_coef) * losses.aux;
  if (!c.aux_coefs.empty()) {
    weighted = T(0);
    for (Index n = 0; n < c.layers; ++n)
      weighted += T(c.aux_coefs[n]) * balance_loss(c.scope, std::vector{s.balance[n]}, tokens, c.top_k);
  }
  losses.total = losses.lm + weighted + T(c.z_coef) * losses.z;
  return losses;
}

// d total / d parameters, added to gradients.
template <typename T>
void model_backward(const ReferenceConfig& c, const Parameters<T>& p, const Batch& batch, const ModelSaved<T>& s,
                    Parameters<T>& gradients /* += */) {
  const Index tokens = batch.sequences * batch.sequence_length;
  const Matrix<T> dlogits = cross_entropy_backward(s.logits, batch.targets, 0, s.cross_entropy.logsumexp,
                                                   1.0 / batch.target_count, batch.weights);
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
