#include "model/mixtral.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/range.h"
#include "model/freeze.h"
#include "model/rope_frequencies.h"

namespace smoe {
namespace {
std::vector<std::unique_ptr<DecoderLayer>> make_layers(ParameterSet& parameters, const ModelConfig& config,
                                                       const RoutingOptions& routing, const Mesh& mesh,
                                                       const LoraConfig* lora,
                                                       std::vector<std::size_t>& first_parameters) {
  std::vector<std::unique_ptr<DecoderLayer>> layers;
  for (int l = 0; l < config.num_hidden_layers; ++l) {
    first_parameters.push_back(parameters.size());
    layers.push_back(std::make_unique<DecoderLayer>(parameters, config, routing, mesh, l, lora));
  }
  first_parameters.push_back(parameters.size());
  return layers;
}
}  // namespace

Mixtral::Mixtral(const ModelConfig& config, const Mesh& mesh, const std::vector<std::string>& frozen,
                 const RoutingOptions& routing, DType type, const LoraConfig* lora)
    : config_(config),
      type_(type),
      has_capacity_(routing.capacity_factor > 0),
      mesh_(mesh),
      embedding_(parameters_, config, mesh),
      layers_(make_layers(parameters_, config, routing, mesh, lora, layer_parameters_)),
      norm_(parameters_, "model.norm.weight", config.hidden_size, config.rms_norm_eps),
      head_(parameters_, config, mesh) {
  for (Parameter& p : parameters_) {
    p.type = type;
    p.trainable = !lora || p.adapter;
  }
  freeze(parameters_, frozen);
}

Mixtral::~Mixtral() {
  if (backend_) mesh_.leave(*backend_);
}

void Mixtral::allocate(Backend& backend, Arena& persistent, std::int64_t positions, bool with_gradients) {
  backend_ = &backend;
  mesh_.use(backend);
  parameters_.allocate(backend, persistent, mesh_, with_gradients);
  rope_table_ = persistent.take({positions, config_.head_size()});
  const RopeFrequencies rope = rope_frequencies(config_);
  backend.rope_table(rope.frequencies, rope.scale, rope_table_);
}

void Mixtral::use_selection_bias(const Tensor& biases) {
  for (std::size_t l = 0; l < layers_.size(); ++l)
    layers_[l]->router().use_selection_bias(
        biases.empty() ? Tensor() : biases.rows(static_cast<std::int64_t>(l), 1).reshape({config_.num_local_experts}));
}

void Mixtral::forward(Context& context, const TokenBatch& batch, Keep keep, Saved& saved, GradientReducer* reducer) {
  run_layers(context, batch, keep, nullptr, saved, reducer);
}

void Mixtral::forward_cached(Context& context, const TokenBatch& batch, KvCache& cache, Saved& saved) {
  if (batch.sequences != 1 || cache.length + batch.sequence_length > cache.capacity)
    throw std::logic_error("a key-value cache holds one sequence of at most " + std::to_string(cache.capacity) +
                           " positions");
  run_layers(context, batch, Keep::nothing, &cache, saved, nullptr);
  cache.length += batch.sequence_length;
}

void Mixtral::run_layers(Context& context, const TokenBatch& batch, Keep keep, KvCache* cache, Saved& saved,
                         GradientReducer* reducer) {
  const std::int64_t last = (cache ? cache->length : 0) + batch.sequence_length;
  if (last > rope_table_.dim(0))
    throw std::logic_error("position " + std::to_string(last - 1) + " is past the " +
                           std::to_string(rope_table_.dim(0)) + " allocated");

  const Range range(context.backend, "forward");
  saved.keep = keep;
  saved.inputs.assign(layers_.size(), {});
  saved.layers.resize(layers_.size());
  const auto about_to_read = [reducer](std::size_t before) {
    if (reducer) reducer->expect_values_before(before);
  };
  about_to_read(layer_parameters_.front());
  Tensor x = embedding_.forward(context, batch), spare;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Range of_layer(context.backend, "layer", static_cast<int>(l));
    about_to_read(layer_parameters_[l + 1]);
    if (keep != Keep::nothing) saved.inputs[l] = x;
    const Tensor y = spare.empty() ? context.activations.take_like(x) : spare;
    const Arena::Mark mark = context.activations.mark();
    const RouterStatistics statistics =
        saved.statistics.counts.empty() ? RouterStatistics{} : saved.statistics.layer(static_cast<std::int64_t>(l));
    layers_[l]->forward(context, batch, rope_table_, x, cache, saved.layers[l], statistics, y);
    if (!saved.choices.empty()) {
      const Tensor& experts = saved.layers[l].router.experts;
      context.backend.copy(saved.choices.rows(static_cast<std::int64_t>(l), 1).reshape(experts.shape()), experts);
    }
    if (keep != Keep::all) context.activations.rewind(mark);
    if (keep == Keep::nothing) spare = x;
    x = y;
  }
  about_to_read(parameters_.size());
  saved.hidden = norm_.forward(context, x, saved.norm);
}

void Mixtral::losses(Context& context, const TokenBatch& batch, Saved& saved) {
  saved.losses = context.activations.take({batch.tokens()});
  saved.uniform_losses = {};
  head_.losses(context, saved.hidden, batch.targets, saved.losses);
}

void Mixtral::loss(Context& context, const TokenBatch& batch, Saved& saved, const Tensor& total) {
  losses(context, batch, saved);
  context.backend.sum(saved.losses, total);
}

void Mixtral::loss_and_gradient(Context& context, const TokenBatch& batch, double scale, Saved& saved,
                                const Tensor& total) {
  head_gradient(context, batch, scale, {}, saved);
  context.backend.sum(saved.losses, total);
}

void Mixtral::head_gradient(Context& context, const TokenBatch& batch, double scale, const Tensor& token_scales,
                            Saved& saved, double label_smoothing) {
  saved.losses = context.activations.take({batch.tokens()});
  saved.uniform_losses = label_smoothing > 0 ? context.activations.take({batch.tokens()}) : Tensor();
  const bool only_head = first_trained() > layer_parameters_.back();
  saved.dhidden = only_head ? Tensor{} : context.activations.take_like(saved.hidden);
  head_.losses_and_gradient(context, saved.hidden, batch.targets, scale, token_scales, label_smoothing, saved.losses,
                            saved.uniform_losses, saved.dhidden);
}

void Mixtral::backward(Context& context, const TokenBatch& batch, const std::vector<RouterGradient>& router_gradients,
                       Saved& saved, GradientReducer* reducer) {
  if (saved.dhidden.empty()) return;
  if (saved.keep == Keep::nothing) throw std::logic_error("backward of a forward that kept nothing");
  const Range range(context.backend, "backward");
  const std::size_t first = first_trained();
  const Tensor gradient = context.activations.take_like(saved.dhidden);  // of x after each layer, from here down
  norm_.backward(context, saved.dhidden, saved.norm, {}, gradient);
  if (reducer) reducer->complete_from(layer_parameters_.back());
  for (std::size_t l = layers_.size(); l-- > 0 && first < layer_parameters_[l + 1];) {
    const Range of_layer(context.backend, "layer", static_cast<int>(l));
    const Arena::Mark mark = context.activations.mark();
    if (saved.keep == Keep::inputs) {
      const Range again_range(context.backend, "recompute");
      const ArenaScope scope(context.scratch);
      const Tensor again = context.activations.take_like(saved.inputs[l]);
      layers_[l]->forward(context, batch, rope_table_, saved.inputs[l], nullptr, saved.layers[l], {}, again);
    }
    layers_[l]->backward(context, batch, rope_table_, router_gradients.empty() ? RouterGradient{} : router_gradients[l],
                         saved.layers[l], gradient, first < layer_parameters_[l]);
    context.activations.rewind(mark);
    if (reducer) reducer->complete_from(layer_parameters_[l]);
  }
  if (first < layer_parameters_.front()) embedding_.backward(context, batch.ids, gradient);
}

std::size_t Mixtral::first_trained() const {
  const auto found =
      std::find_if(parameters_.begin(), parameters_.end(), [](const Parameter& p) { return !p.gradient.empty(); });
  return static_cast<std::size_t>(found - parameters_.begin());
}

KvCache Mixtral::make_cache(Arena& arena, std::int64_t capacity) const {
  KvCache cache;
  cache.capacity = capacity;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    cache.keys.push_back(arena.take(type_, {capacity, config_.num_key_value_heads, config_.head_size()}));
    cache.values.push_back(arena.take(type_, {capacity, config_.num_key_value_heads, config_.head_size()}));
  }
  return cache;
}

ParameterSet declare_parameters(const ModelConfig& config, const Mesh& mesh, const std::vector<std::string>& frozen,
                                DType type, const LoraConfig* lora) {
  Mixtral declared(config, mesh, frozen, {}, type, lora);
  return std::move(declared.parameters());
}

namespace {
double score_flops_per_token(const ModelConfig& c, std::int64_t sequence_length) {
  return static_cast<double>(c.num_hidden_layers) * 2 * static_cast<double>(sequence_length) *
         static_cast<double>(c.num_attention_heads * c.head_size());
}
}  // namespace

double forward_flops_per_token(const ModelConfig& c, std::int64_t sequence_length) {
  const double d = static_cast<double>(c.hidden_size), q = static_cast<double>(c.num_attention_heads * c.head_size());
  const double kv = static_cast<double>(c.num_key_value_heads * c.head_size()),
               s = static_cast<double>(sequence_length);
  const double experts = static_cast<double>(c.num_local_experts), k = static_cast<double>(c.num_experts_per_tok);
  const double layer = 2 * d * (q + 2 * kv) + 2 * q * d + 2 * s * q + 2 * d * experts +
                       k * 6 * d * static_cast<double>(c.intermediate_size);
  return static_cast<double>(c.num_hidden_layers) * layer + 2 * d * static_cast<double>(c.vocab_size);
}

double training_flops_per_token(const ModelConfig& config, std::int64_t sequence_length, bool adapters) {
  const double forward = forward_flops_per_token(config, sequence_length);
  return adapters ? 2 * forward + score_flops_per_token(config, sequence_length) : 3 * forward;
}

}  // namespace smoe
