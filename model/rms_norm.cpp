#include "model/rms_norm.h"

namespace smoe {

RmsNorm::RmsNorm(ParameterSet& parameters, const std::string& name, std::int64_t hidden, double epsilon)
    : weight_(parameters.add({.name = name, .shape = {hidden}, .initial_mean = 1, .decays = false})),
      epsilon_(static_cast<float>(epsilon)) {}

Tensor RmsNorm::forward(Context& context, const Tensor& x, Saved& saved) const {
  saved.x = x;
  saved.rstd = context.activations.take({x.dim(0)});
  Tensor y = context.activations.take_like(x);
  context.backend.rms_norm_forward(x, weight_.value, epsilon_, y, saved.rstd);
  return y;
}

void RmsNorm::backward(Context& context, const Tensor& dy, const Saved& saved, const Tensor& dresidual,
                       const Tensor& dx) const {
  context.backend.rms_norm_backward(dy, saved.x, weight_.value, saved.rstd, dresidual, dx, weight_.gradient);
}

}  // namespace smoe
