// OpenBLAS, as the CPU backend uses it: one sgemm on one thread. The parallelism is ours (gemm.cpp), so that the same
// tiles serve one product and many, and the work divides evenly whatever the experts' row counts.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/backend.h"

namespace smoe::cpu {

// c [m,n] = or += a b, operands as in enum Gemm; lda, ldb, ldc are row strides.
void sgemm(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
           std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);

// The kernel that OpenBLAS runs, "Cooperlake" for example.
std::string blas_kernel_name();

}  // namespace smoe::cpu
