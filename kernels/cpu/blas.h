// OpenBLAS, as the CPU backend uses it: one sgemm on one thread. The parallelism is ours (gemm.cpp), so that the same
// tiles serve one product and many, and the work divides evenly whatever the experts' row counts.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"

namespace smoe::cpu {

// c [m,n] = or += a b, operands as in enum Gemm; lda, ldb, ldc are row strides.
void sgemm(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
           std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate);

// Takes what products on so many threads at once need beside their operands: OpenBLAS works in 128 MiB of address space a
// thread, of which it touches little, keeps it for good, and where the system refuses it, by ulimit -v for one, asks again
// for ever. Throws std::runtime_error then.
void reserve_work_areas(int threads);

// The kernels of OpenBLAS for a CPU with these features, a name for OPENBLAS_CORETYPE; null leaves the choice to the
// library, which knows every CPU that is too old for AVX2. For others it goes by family and model: 0.3.21 gives a Zen 4 its
// AVX2 kernels, and an Intel CPU newer than itself those of 2004, at a seventh of the speed. A user's OPENBLAS_CORETYPE wins.
// docs/performance.md has the rates. Chosen by features alone, not by a measurement at start, since the kernel decides the
// last bits of every sum: the same CPU computes the same numbers in every run. The trainer measures, and warns.
const char* blas_kernel_for(const CpuFeatures& features);

// The kernels that OpenBLAS runs, "Cooperlake" for example.
std::string blas_kernel_name();

}  // namespace smoe::cpu
