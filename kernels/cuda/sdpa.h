// Attention by cuDNN's fused kernels, on tensor cores, where they take the shape; else it is done by the kernels of attention.cu.
// Graphs are built once a shape and kept.
#pragma once

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/memory.h"

namespace smoe::cuda {

class Sdpa {
 public:
  explicit Sdpa(const Stream& stream);
  ~Sdpa();
  Sdpa(const Sdpa&) = delete;
  Sdpa& operator=(const Sdpa&) = delete;

  // Whether forward() and backward() take it: bf16, without documents, and a head size that the library has kernels for.
  bool takes(const AttentionShape& shape, DType type, const Tensor& document_start);

  // As Backend::attention_forward and attention_backward.
  void forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);
  void backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                const Tensor& dout, const Tensor& dqkv);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smoe::cuda
