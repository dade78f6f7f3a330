#include "optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

namespace smoe {

AdamW::AdamW(Backend& backend, Arena& persistent, ParameterSet& parameters, const Mesh& mesh, const OptimizerConfig& config,
             std::int64_t bucket_elements)
    : backend_(backend), parameters_(parameters), config_(config), shards_(parameters, mesh, bucket_elements) {
  const auto& flats = parameters.flat_buffers();
  for (std::size_t f = 0; f < flats.size(); ++f) {
    if (flats[f].gradients.empty()) throw std::logic_error("AdamW needs parameters that were allocated with gradients");
    const Shape shard{shards_.shard_elements(f)};
    const Moments m{persistent.take(shard), persistent.take(shard)};
    backend.fill(m.first, 0.0f);
    backend.fill(m.second, 0.0f);
    moments_.push_back(m);
  }
  for (const Bucket& bucket : shards_.buckets()) add_runs(bucket.flat, bucket);
}

// Neighbours that decay alike become one run, so that a step is a few long passes instead of hundreds of short ones.
void AdamW::add_runs(std::size_t flat, const Bucket& bucket) {
  const FlatBuffer& buffer = parameters_.flat_buffers()[flat];
  const std::int64_t owned_end = bucket.owned + bucket.owned_size;
  std::int64_t begin = 0, end = 0;
  double decay = 0;
  const auto close_run = [&] {
    const std::int64_t n = end - begin, in_shard = bucket.shard + begin - bucket.owned;
    if (n > 0)
      runs_.push_back({buffer.values.rows(begin, n), buffer.gradients.rows(begin, n), moments_[flat].first.rows(in_shard, n),
                       moments_[flat].second.rows(in_shard, n), decay});
  };
  for (const Parameter& p : parameters_) {
    if (p.replicas != buffer.replicas || !p.trainable) continue;
    const std::int64_t first = std::max(p.place, bucket.owned), last = std::min(p.place + p.slice.elements(), owned_end);
    if (first >= last) continue;
    const double wanted = p.decays ? config_.weight_decay : 0.0;
    // Padding between two parameters may join them; a parameter that is frozen may not.
    const bool joins = end > begin && wanted == decay && first - end < 16;
    if (!joins) {
      close_run();
      begin = first;
      decay = wanted;
    }
    end = last;
  }
  close_run();
}

void AdamW::sum_squares(const Tensor& squares) {
  for (std::size_t f = 0; f < moments_.size(); ++f)
    for (const Bucket& bucket : shards_.buckets())
      if (bucket.flat == f) backend_.sum_of_squares(parameters_.flat_buffers()[f].gradients.rows(bucket.owned, bucket.owned_size), squares);
}

double AdamW::gradient_norm(double squares, const Mesh& mesh) {
  mesh.group(Axis::world).all_reduce(std::span(&squares, 1), Reduce::sum, "optim.gradient_norm");
  return std::sqrt(squares);
}

double AdamW::clip_factor(double norm) const {
  if (config_.max_grad_norm == 0) return 1.0;
  return std::min(1.0, config_.max_grad_norm / (norm + 1e-6));
}

void AdamW::step(std::int64_t updates, double learning_rate, double gradient_scale) {
  const double t = static_cast<double>(updates);
  for (const Run& run : runs_) {
    const AdamWStep step{.learning_rate = learning_rate,
                         .beta1 = config_.beta1,
                         .beta2 = config_.beta2,
                         .epsilon = config_.epsilon,
                         .weight_decay = run.weight_decay,
                         .bias_correction1 = 1 - std::pow(config_.beta1, t),
                         .bias_correction2 = 1 - std::pow(config_.beta2, t),
                         .gradient_scale = gradient_scale};
    backend_.adamw(step, run.value, run.gradient, run.first, run.second);
  }
}

}  // namespace smoe
