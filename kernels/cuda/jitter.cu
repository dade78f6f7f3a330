#include <stdexcept>

#include "kernels/cuda/cuda_backend.h"

namespace smoe {

void CudaBackend::do_jitter(const TokenNoise&, const Tensor&, const Tensor&, Write) {
  throw std::logic_error("not written yet");
}

}  // namespace smoe
