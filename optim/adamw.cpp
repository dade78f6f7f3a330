#include "optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

#include "kernels/range.h"

namespace smoe {

AdamW::AdamW(Backend& backend, Arena& persistent, ParameterSet& parameters, const Mesh& mesh,
             const OptimizerConfig& config, std::int64_t bucket_elements)
    : backend_(backend), parameters_(parameters), config_(config), shards_(parameters, mesh, bucket_elements) {
  for (std::size_t f = 0; f < parameters.flat_buffers().size(); ++f) {
    const FlatBuffer& flat = parameters.flat_buffers()[f];
    Moments& m = moments_.emplace_back();
    if (!flat.trainable) continue;
    if (flat.gradients.empty()) throw std::logic_error("AdamW needs parameters that were allocated with gradients");
    const Shape shard{shards_.shard_elements(f)};
    m = {persistent.take(shard), persistent.take(shard)};
    backend.fill(m.first, 0.0f);
    backend.fill(m.second, 0.0f);
  }
  shards_.allocate_masters(backend, persistent);
  for (const Bucket& bucket : shards_.buckets()) add_runs(bucket);
}

ShowNumbers AdamW::keeps_masters() {
  return
      [this](const Parameter& parameter, std::span<float> slice) { shards_.store_masters(backend_, parameter, slice); };
}

std::uint64_t AdamW::bytes(const ParameterSet& parameters, const Mesh& mesh) {
  std::uint64_t bytes = 0;
  for (const FlatBuffer& flat : parameters.flat_buffers()) {
    if (!flat.trainable) continue;
    const std::uint64_t numbers = flat.type == DType::bf16 ? 3 : 2;  // of f32: both moments, and a master beside bf16
    bytes += numbers * bytes_of(DType::f32) *
             static_cast<std::uint64_t>(flat.elements / mesh.size(replica_axis(flat.split)));
  }
  return bytes;
}

// Neighbours that decay and learn alike become one run, so that a step is a few long passes instead of hundreds of short ones.
void AdamW::add_runs(const Bucket& bucket) {
  const FlatBuffer& flat = parameters_.flat_buffers()[bucket.flat];
  const Moments& moments = moments_[bucket.flat];
  OwnedRun run;
  double decay = 0, scale = 1;
  const auto close_run = [&] {
    if (run.size > 0)
      runs_.push_back({shards_.masters(bucket.flat, run), flat.gradients.rows(run.place, run.size),
                       moments.first.rows(run.shard, run.size), moments.second.rows(run.shard, run.size),
                       shards_.rounded_values(bucket.flat, run), decay, scale});
  };
  for (const Parameter& p : parameters_) {
    if (p.flat != bucket.flat) continue;
    const std::int64_t first = std::max(p.place, bucket.owned.place),
                       last = std::min(p.place + p.slice.elements(), bucket.owned.end());
    if (first >= last) continue;
    const double wanted = p.decays ? config_.weight_decay : 0.0;
    if (run.size == 0 || wanted != decay ||
        p.learning_rate_scale != scale) {  // padding between two parameters joins them
      close_run();
      run = {.place = first, .shard = bucket.owned.shard + first - bucket.owned.place, .size = 0};
      decay = wanted;
      scale = p.learning_rate_scale;
    }
    run.size = last - run.place;
  }
  close_run();
}

void AdamW::sum_squares(const Tensor& squares) {
  const Range range(backend_, "gradient_norm");
  for (std::size_t f = 0; f < moments_.size(); ++f)  // by buffer: the order of the sum
    for (const Bucket& bucket : shards_.buckets())
      if (bucket.flat == f)
        backend_.sum_of_squares(parameters_.flat_buffers()[f].gradients.rows(bucket.owned.place, bucket.owned.size),
                                squares);
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
    const AdamWStep step{.learning_rate = learning_rate * run.learning_rate_scale,
                         .beta1 = config_.beta1,
                         .beta2 = config_.beta2,
                         .epsilon = config_.epsilon,
                         .weight_decay = run.weight_decay,
                         .bias_correction1 = 1 - std::pow(config_.beta1, t),
                         .bias_correction2 = 1 - std::pow(config_.beta2, t),
                         .gradient_scale = gradient_scale};
    backend_.adamw(step, run.master, run.gradient, run.first, run.second, run.value);
  }
}

}  // namespace smoe
