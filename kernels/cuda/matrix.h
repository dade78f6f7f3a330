// Matrix products by cuBLASLt. Plans are found once a shape and kept; the library is loaded when the first backend is made,
// so that a program starts where it is not.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "kernels/cuda/memory.h"

namespace smoe::cuda {

// C [m,n] = or += A B, row-major and dense; the operands as enum Gemm names them.
struct Product {
  Gemm kind;
  std::int64_t m, n, k;
  const void *a, *b;
  void* c;
  DType in, out;  // of A and B; of C
  Write write;
};

class Matrix {
 public:
  explicit Matrix(const Stream& stream);
  ~Matrix();
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  // Queues it. m, n and k are 1 or more.
  void multiply(const Product& product);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smoe::cuda
