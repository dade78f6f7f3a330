// Complex-step differentiation (Squire & Trapp 1998; Martins et al. 2003): for an analytic F, imag(F(x + ih)) / h is
// dF/dx with an error of h^2, so that h can be 1e-30 and nothing cancels.
#pragma once

#include <string>
#include <utility>

#include "tests/reference/mixtral.h"
#include "tests/support/deviation.h"

namespace smoe::reference {

constexpr double complex_step = 1e-30;
constexpr double gradient_tolerance = 1e-12;  // a deviation beyond it is an error of a formula, not of rounding

// f: std::vector<Complex> -> Complex, differentiated by each entry at a real point.
template <typename F>
std::vector<double> complex_step_gradient(const std::vector<double>& at, F f) {
  std::vector<Complex> x = cast<Complex>(at);
  std::vector<double> gradient;
  for (Complex& entry : x) {
    entry += Complex(0, complex_step);
    gradient.push_back(f(std::as_const(x)).imag() / complex_step);
    entry = entry.real();
  }
  return gradient;
}

using test::deviation;
using test::largest;

// A scalar that sees every output: sum_i direction_i * values_i.
template <typename T>
T project(const std::vector<T>& values, const std::vector<double>& direction) {
  T total(0);
  for (std::size_t i = 0; i < values.size(); ++i) total += values[i] * T(direction[i]);
  return total;
}

using NamedGradients = std::vector<std::pair<std::string, std::vector<double>>>;

// d total / d every entry of every parameter.
inline NamedGradients complex_step_model_gradient(const ReferenceConfig& config, const Parameters<double>& parameters,
                                                  const Batch& batch) {
  Parameters<Complex> p = cast<Complex>(config, parameters);
  NamedGradients gradients;
  visit_parameters(p, [&](const std::string& name, const std::vector<Index>&, std::vector<Complex>& values) {
    std::vector<double> gradient;
    for (Complex& entry : values) {
      entry += Complex(0, complex_step);
      ModelSaved<Complex> saved;
      gradient.push_back(model_forward(config, p, batch, saved).total.imag() / complex_step);
      entry = entry.real();
    }
    gradients.emplace_back(name, std::move(gradient));
  });
  return gradients;
}

inline NamedGradients model_gradient(const ReferenceConfig& config, const Parameters<double>& parameters,
                                     const Batch& batch) {
  ModelSaved<double> saved;
  model_forward(config, parameters, batch, saved);
  Parameters<double> g = make_parameters<double>(config);
  model_backward(config, parameters, batch, saved, g);
  NamedGradients gradients;
  visit_parameters(g, [&](const std::string& name, const std::vector<Index>&, std::vector<double>& values) {
    gradients.emplace_back(name, values);
  });
  return gradients;
}

}  // namespace smoe::reference
