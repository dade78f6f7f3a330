// AdamW (Loshchilov & Hutter 2019), decoupled weight decay, the clip factor folded in.
#pragma once

#include "tests/reference/matrix.h"

namespace smoe::reference {

struct AdamWStep {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double bias_correction1, bias_correction2;  // 1 - beta^t
  double gradient_scale;
};

// Updates parameter and moments, and clears the gradient it has used.
template <typename T>
void adamw(const AdamWStep& step, std::vector<T>& parameter, std::vector<T>& gradient, std::vector<T>& first_moment,
           std::vector<T>& second_moment) {
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    const T g = gradient[i] * T(step.gradient_scale);
    first_moment[i] = T(step.beta1) * first_moment[i] + T(1 - step.beta1) * g;
    second_moment[i] = T(step.beta2) * second_moment[i] + T(1 - step.beta2) * g * g;
    const T mean = first_moment[i] / T(step.bias_correction1);
    const T square = second_moment[i] / T(step.bias_correction2);
    parameter[i] -= T(step.learning_rate * step.weight_decay) * parameter[i];
    parameter[i] -= T(step.learning_rate) * mean / (std::sqrt(square) + T(step.epsilon));
    gradient[i] = T(0);
  }
}

}  // namespace smoe::reference
