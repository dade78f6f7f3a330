// kernels/cuda/sdpa.h by the CPU's attention, queued on the stream as the library's is.
#include "kernels/cuda/sdpa.h"

#include "kernels/backend.h"

namespace smoe::cuda {

struct Sdpa::Library {
  explicit Library(const Stream& of) : stream(of) {}
  ~Library() { cudaStreamSynchronize(stream); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const Stream& stream;
  std::unique_ptr<Backend> cpu = make_cpu_backend(1);
};

namespace {
Tensor on_host(const Tensor& tensor) { return Tensor(tensor.raw(), tensor.type(), tensor.shape()); }
}  // namespace

Sdpa::Sdpa(const Stream& stream) : library_(new Library(stream)) {}
Sdpa::~Sdpa() = default;

bool Sdpa::takes(Pass, const AttentionShape& shape, DType type, const Tensor& document_start) {
  return cuda_on_host::machine().fused_attention && type == DType::bf16 && document_start.empty() &&
         shape.head_dim % 8 == 0;
}

void Sdpa::forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  cuda_on_host::queue(library_->stream, [=, cpu = library_->cpu.get()] {
    cpu->attention_forward(shape, on_host(qkv), {}, on_host(out), on_host(lse));
  });
}

void Sdpa::backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                    const Tensor& dout, const Tensor& dqkv) {
  cuda_on_host::queue(library_->stream, [=, cpu = library_->cpu.get()] {
    cpu->attention_backward(shape, on_host(qkv), {}, on_host(out), on_host(lse), on_host(dout), on_host(dqkv));
  });
}

}  // namespace smoe::cuda
