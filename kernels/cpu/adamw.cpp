#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {

// One pass: four arrays read, four written. The arithmetic follows torch.optim.AdamW operation by operation: decay
// first, the first moment as a linear interpolation, sqrt(v) / sqrt(bias correction) + epsilon, scalars in double.
void CpuBackend::do_adamw(const AdamWStep& step, const Tensor& parameter, const Tensor& gradient,
                          const Tensor& first_moment, const Tensor& second_moment) {
  float *w = parameter.f32(), *g = gradient.f32(), *m = first_moment.f32(), *v = second_moment.f32();
  const auto keep = static_cast<float>(1.0 - step.learning_rate * step.weight_decay);
  const auto blend = static_cast<float>(1.0 - step.beta1);
  const auto beta2 = static_cast<float>(step.beta2);
  const auto square_blend = static_cast<float>(1.0 - step.beta2);
  const auto step_size = static_cast<float>(step.learning_rate / step.bias_correction1);
  const auto root_correction = static_cast<float>(std::sqrt(step.bias_correction2));
  const auto epsilon = static_cast<float>(step.epsilon);
  const auto scale = static_cast<float>(step.gradient_scale);
  cpu::for_blocks(threads_, parameter.elements(), cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
    for (std::int64_t i = first; i < last; ++i) {
      const float gradient_i = g[i] * scale;
      const float mean = m[i] + blend * (gradient_i - m[i]);
      const float square = v[i] * beta2 + square_blend * (gradient_i * gradient_i);
      w[i] = w[i] * keep - step_size * (mean / (std::sqrt(square) / root_correction + epsilon));
      m[i] = mean;
      v[i] = square;
      g[i] = 0.0f;
    }
  });
}

}  // namespace smoe
