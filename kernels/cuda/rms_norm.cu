#include <stdexcept>

#include "kernels/cuda/cuda_backend.h"

namespace smoe {

void CudaBackend::do_rms_norm_forward(const Tensor&, const Tensor&, float, const Tensor&, const Tensor&) {
  throw std::logic_error("not written yet");
}

void CudaBackend::do_rms_norm_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&, const Tensor&) {
  throw std::logic_error("not written yet");
}

}  // namespace smoe
