#include "optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace smoe {
namespace {
std::int64_t offset_in(const Tensor& flat, const Tensor& part) { return part.f32() - flat.f32(); }

bool holds(const Tensor& flat, const Tensor& part) {
  const std::int64_t offset = offset_in(flat, part);
  return offset >= 0 && offset + part.elements() <= flat.elements();
}
}  // namespace

AdamW::AdamW(Backend& backend, Arena& persistent, ParameterSet& parameters, const OptimizerConfig& config)
    : backend_(backend), parameters_(parameters), config_(config) {
  for (const FlatBuffer& flat : parameters.flat_buffers()) {
    if (flat.gradients.empty()) throw std::logic_error("AdamW needs parameters that were allocated with gradients");
    Moments m{flat.values, persistent.take(flat.values.shape()), persistent.take(flat.values.shape())};
    backend.fill(m.first, 0.0f);
    backend.fill(m.second, 0.0f);
    moments_.push_back(m);

    // Neighbours that decay alike become one run, so that a step is a few long passes instead of hundreds of short ones.
    std::int64_t begin = 0, end = 0;
    double decay = 0;
    const auto close_run = [&] {
      if (end > begin)
        runs_.push_back({flat.values.rows(begin, end - begin), flat.gradients.rows(begin, end - begin),
                         m.first.rows(begin, end - begin), m.second.rows(begin, end - begin), decay});
    };
    for (const Parameter& p : parameters) {
      if (p.replicas != flat.replicas || !p.trainable) continue;
      const std::int64_t first = offset_in(flat.values, p.value), last = first + p.value.elements();
      const double wanted = p.decays ? config.weight_decay : 0.0;
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
}

double AdamW::gradient_norm(const Mesh& mesh) {
  double squares = 0;
  for (const FlatBuffer& flat : parameters_.flat_buffers()) squares += backend_.sum_of_squares(flat.gradients);
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

void AdamW::clear_gradients() {
  for (const FlatBuffer& flat : parameters_.flat_buffers()) backend_.fill(flat.gradients, 0.0f);
}

Tensor AdamW::moment(const Parameter& parameter, Tensor Moments::*which) const {
  for (const Moments& m : moments_)
    if (holds(m.values, parameter.value))
      return (m.*which).rows(offset_in(m.values, parameter.value), parameter.value.elements()).reshape(parameter.value.shape());
  throw std::logic_error(parameter.name + " is not one of the optimizer's parameters");
}

Tensor AdamW::first_moment(const Parameter& parameter) const { return moment(parameter, &Moments::first); }
Tensor AdamW::second_moment(const Parameter& parameter) const { return moment(parameter, &Moments::second); }

}  // namespace smoe
