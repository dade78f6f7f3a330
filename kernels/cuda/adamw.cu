#include <cstdint>

#include "kernels/adamw_scalars.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace smoe {
namespace {
using namespace cuda;

template <int W>
__global__ void adamw_kernel(AdamWScalars c, float* master, float* gradient, float* first_moment, float* second_moment,
                             Bf16* value, std::int64_t pieces) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= pieces * W) return;
  float weight[W], g[W], m[W], v[W];
  load(master + i, weight);
  load(gradient + i, g);
  load(first_moment + i, m);
  load(second_moment + i, v);
#pragma unroll
  for (int w = 0; w < W; ++w) {
    g[w] *= c.scale;
    m[w] += c.blend * (g[w] - m[w]);
    v[w] = v[w] * c.beta2 + c.square_blend * (g[w] * g[w]);
    weight[w] = weight[w] * c.keep - c.step_size * (m[w] / (sqrtf(v[w]) / c.root_correction + c.epsilon));
    g[w] = 0;
  }
  store(master + i, weight);
  store(gradient + i, g);
  store(first_moment + i, m);
  store(second_moment + i, v);
  if (value) store(value + i, weight);
}

}  // namespace

void CudaBackend::do_adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient,
                           const Tensor& first_moment, const Tensor& second_moment, const Tensor& value) {
  const AdamWScalars c(step);
  const std::int64_t n = master.elements();
  by_width<float>(n, {master, gradient, first_moment, second_moment, value}, [&]<class A, int W>() {
    launch(stream_, "adamw", over(n / W), adamw_kernel<W>, c, master.f32(), gradient.f32(), first_moment.f32(),
           second_moment.f32(), data<Bf16>(value), n / W);
  });
}

}  // namespace smoe
