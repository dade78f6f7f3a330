#include "model/router.h"

#include <algorithm>

#include "kernels/range.h"
#include "parallel/token_split.h"

namespace smoe {

namespace {

// As Backend::router_forward says of padding: no expert, and zeros.
void leave_out_padding(Context& context, const TokenBatch& batch, const Router::Saved& saved) {
  const TokenSplit split(context.mesh);
  const std::int64_t first = split.first(batch.tokens()), behind = first + split.local(batch.tokens());
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    const std::int64_t begin = std::max(first, s * batch.sequence_length + batch.length_of(s)),
                       end = std::min(behind, (s + 1) * batch.sequence_length);
    if (begin >= end) continue;
    context.backend.fill(saved.experts.rows(begin - first, end - begin), -1.0f);
    for (const Tensor& numbers : {saved.probabilities, saved.logsumexp, saved.weights})
      context.backend.fill(numbers.rows(begin - first, end - begin), 0.0f);
  }
}

}  // namespace

Router::Router(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config,
               const RoutingOptions& options, int layer, const LoraConfig* lora)
    : experts_(config.num_local_experts),
      experts_per_token_(config.num_experts_per_tok),
      rule_(config.routing_rule()),
      jitter_(options.jitter),
      layer_(layer),
      gate_(parameters,
            {{.name = prefix + "gate.weight",
              .shape = {experts_, config.hidden_size},
              .initial_std = static_cast<float>(config.initializer_range),
              .learning_rate_scale = options.learning_rate_scale}},
            {lora, layer, AdapterSite::Input::router}) {}

void Router::forward(Context& context, const TokenBatch& batch, const Tensor& x, Saved& saved,
                     const RouterStatistics& statistics) const {
  Backend& backend = context.backend;
  const Range range(backend, "router");
  Arena& keep = context.activations;
  const std::int64_t tokens = x.dim(0);
  saved.x = x;
  saved.noise.reset();
  saved.numbers = {};
  if (batch.noise)
    saved.numbers = {batch.noise->key, batch.noise->first_token + TokenSplit(context.mesh).first(batch.tokens())};
  if (jitter_ > 0 && batch.noise) {
    saved.noise = TokenNoise{batch.noise->key, saved.numbers.first, static_cast<std::uint32_t>(layer_), jitter_};
    saved.x = keep.take_like(x);
    backend.jitter(*saved.noise, x, saved.x, Write::assign);
  }
  saved.logits = keep.take({tokens, experts_});
  saved.probabilities = keep.take({tokens, experts_});
  saved.logsumexp = keep.take({tokens});
  saved.experts = keep.take(DType::i32, {tokens, experts_per_token_});
  saved.weights = keep.take({tokens, experts_per_token_});
  gate_.forward(context, saved.x, saved.logits, saved.numbers);
  const Tensor& bias = batch.forced.empty() ? selection_bias_ : batch.forced;
  backend.router_forward(rule_, saved.logits, bias, saved.probabilities, saved.logsumexp, saved.experts, saved.weights);
  if (batch.has_padding()) leave_out_padding(context, batch, saved);
  if (!statistics.counts.empty())
    backend.balance_statistics(saved.probabilities, saved.logsumexp, saved.experts, statistics.counts,
                               statistics.probability_sums, statistics.z_sums);
  if (!statistics.measures.empty())
    backend.router_measures(rule_, saved.logits, selection_bias_, saved.probabilities, saved.experts,
                            statistics.measures);
}

void Router::backward(Context& context, const Tensor& dweights, const RouterGradient& gradient, const Saved& saved,
                      const Tensor& dx) const {
  const Range range(context.backend, "router");
  const ArenaScope scope(context.scratch);
  const Tensor dlogits = context.scratch.take(dx.type(), saved.probabilities.shape());
  context.backend.router_backward(rule_, saved.logits, saved.probabilities, saved.logsumexp, saved.experts,
                                  saved.weights, dweights, gradient.balance, gradient.z_scale, dlogits);
  if (!gradient.gate_parts.empty()) add_gate_parts(context, dweights, gradient, saved, dx.type());
  if (!saved.noise) return gate_.backward(context, dlogits, saved.x, dx, Write::add, saved.numbers);
  const Tensor djittered = context.scratch.take_like(dx);
  gate_.backward(context, dlogits, saved.x, djittered, Write::assign, saved.numbers);
  context.backend.jitter(*saved.noise, djittered, dx, Write::add);
}

// dlogits is a sum of parts: each is what is left where the others are.
void Router::add_gate_parts(Context& context, const Tensor& dweights, const RouterGradient& gradient,
                            const Saved& saved, DType type) const {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);
  const Tensor dlogits = context.scratch.take(type, saved.probabilities.shape()),
               none = context.scratch.take_like(dweights);
  backend.fill(none, 0.0f);
  const Tensor& parts = gradient.gate_parts;
  const auto add = [&](std::int64_t part, const Tensor& through_weights, const Tensor& balance, double z_scale) {
    backend.router_backward(rule_, saved.logits, saved.probabilities, saved.logsumexp, saved.experts, saved.weights,
                            through_weights, balance, z_scale, dlogits);
    backend.gemm(Gemm::tn, dlogits, saved.x, parts.rows(part, 1).reshape({parts.dim(1), parts.dim(2)}), Write::add);
  };
  add(0, dweights, {}, 0);
  if (!gradient.balance.empty()) add(1, none, gradient.balance, 0);
  if (gradient.z_scale != 0) add(2, none, {}, gradient.z_scale);
}

}  // namespace smoe
