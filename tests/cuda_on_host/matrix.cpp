// kernels/cuda/matrix.h by the CPU's products, queued on the stream as the library's are.
#include "kernels/cuda/matrix.h"

#include "kernels/backend.h"

namespace smoe::cuda {

struct Matrix::Library {
  const Stream& stream;
  std::unique_ptr<Backend> cpu = make_cpu_backend(1);
};

Matrix::Matrix(const Stream& stream) : library_(new Library{stream}) {}
Matrix::~Matrix() = default;

void Matrix::multiply(const Product& p) {
  cuda_on_host::queue(library_->stream, [p, cpu = library_->cpu.get()] {
    const auto tensor = [](const void* data, DType type, std::int64_t rows, std::int64_t cols) {
      return Tensor(const_cast<void*>(data), type, {rows, cols});
    };
    const Tensor a = p.kind == Gemm::tn ? tensor(p.a, p.in, p.k, p.m) : tensor(p.a, p.in, p.m, p.k);
    const Tensor b = p.kind == Gemm::nt ? tensor(p.b, p.in, p.n, p.k) : tensor(p.b, p.in, p.k, p.n);
    cpu->gemm(p.kind, a, b, tensor(p.c, p.out, p.m, p.n), p.write);
  });
}

}  // namespace smoe::cuda
