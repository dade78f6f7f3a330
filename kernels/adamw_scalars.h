// What a step of AdamW multiplies by, rounded to f32 once: the backends share it, so that they differ in nothing but the order of
// operations. As torch.optim.AdamW: decay first, the first moment as a linear interpolation, sqrt(v) / sqrt(bias correction) +
// epsilon, scalars in double.
#pragma once

#include <cmath>

#include "kernels/backend.h"

namespace smoe {

struct AdamWScalars {
  float keep, blend, beta2, square_blend, step_size, root_correction, epsilon, scale;

  explicit AdamWScalars(const AdamWStep& step)
      : keep(static_cast<float>(1.0 - step.learning_rate * step.weight_decay)),
        blend(static_cast<float>(1.0 - step.beta1)),
        beta2(static_cast<float>(step.beta2)),
        square_blend(static_cast<float>(1.0 - step.beta2)),
        step_size(static_cast<float>(step.learning_rate / step.bias_correction1)),
        root_correction(static_cast<float>(std::sqrt(step.bias_correction2))),
        epsilon(static_cast<float>(step.epsilon)),
        scale(static_cast<float>(step.gradient_scale)) {}
};

}  // namespace smoe
