#include "model/experts.h"

namespace smoe {

Experts::Experts(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, std::int64_t first, std::int64_t count)
    : intermediate_(config.intermediate_size) {
  const std::int64_t hidden = config.hidden_size;
  const auto add = [&](std::int64_t expert, const char* name, Shape shape, bool follows) -> const Parameter& {
    return parameters.add({.name = prefix + "experts." + std::to_string(expert) + "." + name + ".weight", .shape = shape,
                           .replicas = Replicas::expert, .initial_std = static_cast<float>(config.initializer_range),
                           .follows_previous = follows});
  };
  for (std::int64_t e = first; e < first + count; ++e) {
    const Parameter& w1 = add(e, "w1", {intermediate_, hidden}, e != first);
    add(e, "w3", {intermediate_, hidden}, true);
    if (e == first) gate_up_.first = &w1;
  }
  for (std::int64_t e = first; e < first + count; ++e) {
    const Parameter& w2 = add(e, "w2", {hidden, intermediate_}, e != first);
    if (e == first) down_.first = &w2;
  }
  gate_up_.shape = {count, 2 * intermediate_, hidden};
  down_.shape = {count, hidden, intermediate_};
}

void Experts::forward(Context& context, const Tensor& x, const Tensor& row_weights, const ExpertRows& rows, Saved& saved,
                      const Tensor& y) const {
  const std::int64_t r = x.dim(0);
  saved.x = x;
  saved.row_weights = row_weights;
  saved.rows = rows;
  saved.h = context.activations.take({r, 2 * intermediate_});
  const ArenaScope scope(context.scratch);
  const Tensor a = context.scratch.take({r, intermediate_});
  context.backend.grouped_gemm(Gemm::nt, x, gate_up_.value(), saved.h, rows, Write::assign);
  context.backend.swiglu_forward(saved.h, row_weights, a);
  context.backend.grouped_gemm(Gemm::nt, a, down_.value(), y, rows, Write::assign);
}

void Experts::backward(Context& context, const Tensor& dy_then_dx, Saved& saved, const Tensor& drow_weights) const {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);
  const std::int64_t r = dy_then_dx.dim(0);
  const Tensor da = context.scratch.take({r, intermediate_});
  const Tensor a = context.scratch.take({r, intermediate_});
  backend.grouped_gemm(Gemm::nn, dy_then_dx, down_.value(), da, saved.rows, Write::assign);
  const Tensor dh = saved.h;  // in place: h is not needed again
  backend.swiglu_backward(saved.h, saved.row_weights, da, dh, drow_weights, a);
  backend.grouped_gemm(Gemm::tn, dy_then_dx, a, down_.gradient(), saved.rows, Write::add);
  backend.grouped_gemm(Gemm::tn, dh, saved.x, gate_up_.gradient(), saved.rows, Write::add);
  backend.grouped_gemm(Gemm::nn, dh, gate_up_.value(), dy_then_dx, saved.rows, Write::assign);
}

}  // namespace smoe
