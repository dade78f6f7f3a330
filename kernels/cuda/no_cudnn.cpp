// What stands for sdpa.cpp where cuDNN's headers are not: nothing is taken, and attention is done by the kernels of attention.cu.
#include <stdexcept>

#include "kernels/cuda/sdpa.h"

namespace smoe::cuda {

struct Sdpa::Library {};

Sdpa::Sdpa(const Stream&) {}
Sdpa::~Sdpa() = default;

bool Sdpa::takes(Pass, const AttentionShape&, DType, const Tensor&) { return false; }

void Sdpa::forward(const AttentionShape&, const Tensor&, const Tensor&, const Tensor&) {
  throw std::logic_error("cuDNN is not in this build, which takes no shape");
}

void Sdpa::backward(const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  throw std::logic_error("cuDNN is not in this build, which takes no shape");
}

}  // namespace smoe::cuda
