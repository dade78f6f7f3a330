// A real Mixtral beside the reference one, with the same weights: what the tests of this folder compare.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device_sums.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "parallel/mesh.h"
#include "tests/model/reference_routing.h"
#include "tests/reference/mixtral.h"
#include "tests/reference/random.h"
#include "tests/support/deviation.h"

namespace smoe {

inline ModelConfig model_config(const reference::ReferenceConfig& c) {
  ModelConfig m;
  m.vocab_size = c.vocab;
  m.hidden_size = c.hidden;
  m.intermediate_size = c.ffn;
  m.num_hidden_layers = c.layers;
  m.num_attention_heads = c.heads;
  m.num_key_value_heads = c.kv_heads;
  m.head_dim = c.head_dim;
  m.num_local_experts = c.experts;
  m.num_experts_per_tok = c.top_k;
  set_rule(m, c.rule);
  m.rope_theta = c.rope_theta;
  m.rms_norm_eps = c.eps;
  if (c.window > 0) m.sliding_window = c.window;
  return m;
}

inline RouterConfig router_config(const reference::ReferenceConfig& c) {
  RouterConfig r;
  r.aux_loss_coef = c.aux_coef;
  r.aux_loss_coef_by_layer = c.aux_coefs;
  r.z_loss_coef = c.z_coef;
  switch (c.scope) {
    case reference::BalanceScope::micro_batch: r.aux_loss_scope = AuxLossScope::micro_batch; break;
    case reference::BalanceScope::sequence: r.aux_loss_scope = AuxLossScope::sequence; break;
    case reference::BalanceScope::hf: r.aux_loss_scope = AuxLossScope::hf; break;
  }
  return r;
}

// Weights rounded to float first, so that both compute with the same numbers.
inline reference::Parameters<double> float_parameters(const reference::ReferenceConfig& config, std::uint64_t seed) {
  auto p = reference::random_parameters(config, seed);
  reference::visit_parameters(p, [](const auto&, const auto&, auto& values) {
    for (double& v : values) v = static_cast<float>(v);
  });
  return p;
}

class RealModel {
 public:
  RealModel(const reference::ReferenceConfig& config, const reference::Parameters<double>& weights,
            std::int64_t positions, int threads = 2, const LoraConfig* lora = nullptr)
      : backend(make_cpu_backend(threads)),
        persistent(*backend),
        activations(*backend),
        scratch(*backend),
        model(model_config(config), mesh, {},
              RoutingOptions{config.capacity_factor,
                             config.capacity_by_probability ? CapacityOrder::probability : CapacityOrder::position,
                             static_cast<float>(config.jitter)},
              DType::f32, lora),
        router(router_config(config)),
        balance(model.config(), router),
        config_(config),
        numbers_assignments_(lora && lora->dropout > 0) {
    model.allocate(*backend, persistent, positions, true);
    if (!config.selection_bias.empty()) {
      const Tensor biases = persistent.take({config.layers, config.experts});
      backend->copy_from_host(biases, reference::cast<float>(config.selection_bias).data());
      model.use_selection_bias(biases);
    }
    reference::visit_parameters(weights, [&](const std::string& name, const auto&, const std::vector<double>& values) {
      const Parameter* p = model.parameters().find(name);
      ASSERT_NE(p, nullptr) << name;
      ASSERT_EQ(static_cast<std::size_t>(p->value.elements()), values.size()) << name;
      std::copy(values.begin(), values.end(), p->value.f32());
    });
  }

  struct Losses {
    double lm, aux, z;
    double weighted_aux;
    double uniform;  // 0 unless labels are smoothed
  };
  // Forward and backward of one micro-batch that is the whole step; gradients accumulate in the parameters.
  Losses step(const reference::Batch& batch, Recompute recompute = Recompute::none,
              Positions positions = Positions::of_sequence) {
    activations.rewind({});
    scratch.rewind({});
    Context context{*backend, mesh, activations, scratch};
    TokenBatch tokens = make_token_batch(*backend, activations, batch.sequences, batch.sequence_length, batch.tokens,
                                         batch.targets, batch.document_start, 0, positions);
    tokens.noise = BatchNoise{batch.noise_key, 0};
    if (numbers_assignments_) tokens.assignments = number_assignments(context, tokens, config_.top_k);
    if (config_.neftune_alpha > 0) tokens.embedding_noise = half_widths(batch);
    saved.statistics = balance.take_statistics(context, tokens);
    model.forward(context, tokens, kept_with(recompute), saved);
    const double scale = 1.0 / batch.target_count;
    DeviceSums loss(*backend);
    loss.reset(2);
    if (config_.label_smoothing > 0) {
      model.head_gradient(context, tokens, scale, {}, saved, config_.label_smoothing);
      backend->sum(saved.losses, loss[0]);
      backend->sum(saved.uniform_losses, loss[1]);
    } else {
      model.loss_and_gradient(context, tokens, scale, saved, loss[0]);
    }
    const double lm = loss.read()[0] * scale, uniform = loss.read()[1] * scale;
    balance.begin_step(1);
    balance.add_micro_batch(context, saved.statistics, router_gradients);
    model.backward(context, tokens, router_gradients, saved);
    return {lm, balance.values().trained(router.aux_loss_scope), balance.values().z_total(),
            balance.values().weighted(router.aux_loss_scope, balance.coefficients()), uniform};
  }
  void clear_gradients() {
    for (const auto& flat : model.parameters().flat_buffers())
      if (!flat.gradients.empty()) backend->fill(flat.gradients, 0.0f);
  }
  std::vector<float> gradient(const std::string& name) {
    const Tensor g = model.parameters().find(name)->gradient;
    return {g.f32(), g.f32() + g.elements()};
  }

  Mesh mesh = Mesh::single();
  std::unique_ptr<Backend> backend;
  Arena persistent, activations, scratch;
  Mixtral model;
  RouterConfig router;
  BalanceLoss balance;
  Mixtral::Saved saved;
  std::vector<RouterGradient> router_gradients;

 private:
  // Of what NEFTune adds: the reference's noise over its draws.
  Tensor half_widths(const reference::Batch& batch) {
    const auto tokens = static_cast<reference::Index>(batch.tokens.size());
    std::vector<float> widths;
    const auto draws =
        reference::uniform_noise({batch.noise_key, 0, reference::embedding_layer}, tokens, config_.hidden);
    const auto noise = reference::embedding_noise(batch.noise_key, config_.neftune_alpha, batch.document_start, tokens,
                                                  batch.sequence_length, config_.hidden);
    for (reference::Index t = 0; t < tokens; ++t) widths.push_back(static_cast<float>(noise(t, 0) / draws(t, 0)));
    const Tensor on_device = activations.take({tokens});
    backend->copy_from_host(on_device, widths.data());
    return on_device;
  }

  reference::ReferenceConfig config_;
  bool numbers_assignments_;
};

}  // namespace smoe
