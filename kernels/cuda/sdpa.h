// Attention by cuDNN's fused kernels, on tensor cores, where they take the shape; else it is done by the kernels of attention.cu.
// Graphs are built once a shape and kept; the library is loaded when it is first wanted, so that a program starts where
// it is not.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "kernels/cuda/memory.h"

namespace smoe::cuda {

class Sdpa {
 public:
  explicit Sdpa(const Stream& stream);
  ~Sdpa();
  Sdpa(const Sdpa&) = delete;
  Sdpa& operator=(const Sdpa&) = delete;

  enum class Pass : std::uint8_t { forward, backward };

  // Whether that pass takes it: bf16, without documents, and a shape that the library has kernels for. One pass may and the other
  // not. The first shape of bf16 that is refused is told on stderr, with the reason.
  bool takes(Pass pass, const AttentionShape& shape, DType type, const Tensor& document_start);

  // As Backend::attention_forward and attention_backward, of what takes() has agreed to.
  void forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);
  void backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                const Tensor& dout, const Tensor& dqkv);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smoe::cuda
