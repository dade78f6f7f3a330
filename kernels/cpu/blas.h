// OpenBLAS, as the CPU backend uses it: one sgemm on one thread. The parallelism is ours (gemm.cpp), so that the same
// tiles serve one product and many, and the work divides evenly whatever the experts' row counts.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/backend.h"

namespace smoe::cpu {

// Call first in every parallel region that calls sgemm: OpenBLAS then uses the calling thread alone, even where the
// region was given a single thread and so does not look parallel to it. The setting ends with the region.
void use_serial_blas_in_this_region();

// c [m,n] = or += a b, operands as in enum Gemm; lda, ldb, ldc are row strides.
void sgemm(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
           std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);

// The kernel that OpenBLAS runs, "Cooperlake" for example.
std::string blas_kernel_name();

}  // namespace smoe::cpu
