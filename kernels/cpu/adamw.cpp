#include <cmath>

#include "kernels/adamw_scalars.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {

namespace {
template <class Store>
void update(const AdamWScalars& c, float* w, float* g, float* m, float* v, std::int64_t first, std::int64_t last,
            const Store& store) {
#pragma omp simd
  for (std::int64_t i = first; i < last; ++i) {
    const float gradient_i = g[i] * c.scale;
    const float mean = m[i] + c.blend * (gradient_i - m[i]);
    const float square = v[i] * c.beta2 + c.square_blend * (gradient_i * gradient_i);
    const float updated = w[i] * c.keep - c.step_size * (mean / (std::sqrt(square) / c.root_correction + c.epsilon));
    w[i] = updated;
    store(i, updated);
    m[i] = mean;
    v[i] = square;
    g[i] = 0.0f;
  }
}
}  // namespace

// One pass: four arrays read, four written, and the rounded value.
void CpuBackend::do_adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient,
                          const Tensor& first_moment, const Tensor& second_moment, const Tensor& value) {
  float *w = master.f32(), *g = gradient.f32(), *m = first_moment.f32(), *v = second_moment.f32();
  Bf16* half = value.empty() ? nullptr : value.bf16();
  const AdamWScalars c(step);
  cpu::for_blocks(threads_, master.elements(), cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
    if (half)
      update(c, w, g, m, v, first, last, [half](std::int64_t i, float updated) { half[i] = rounded(updated); });
    else
      update(c, w, g, m, v, first, last, [](std::int64_t, float) {});
  });
}

}  // namespace smoe
