#include "kernels/cpu/blas.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

extern "C" char* openblas_get_corename();

namespace smoe::cpu {
namespace {

// The library reads OPENBLAS_CORETYPE in its own constructor; ours has a priority, so it runs before. It keeps its hands
// off a choice that the user made.
__attribute__((constructor(101))) void choose_blas_kernel() {
  const char* asked = std::getenv("OPENBLAS_CORETYPE");
  if (asked && *asked) return;
  if (const char* kernel = blas_kernel_for(cpu_features())) setenv("OPENBLAS_CORETYPE", kernel, 1);
}

// While it lives, OpenBLAS uses the calling thread alone, inside a parallel region or outside of one.
class SerialBlas {
 public:
  SerialBlas() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SerialBlas() { omp_set_num_threads(before_); }
  SerialBlas(const SerialBlas&) = delete;
  SerialBlas& operator=(const SerialBlas&) = delete;

 private:
  int before_;
};

blasint blas_int(std::int64_t value) {
  if (value > std::int64_t{0x7fffffff}) throw std::length_error("matrix dimension beyond 2^31 - 1");
  return static_cast<blasint>(value);
}

}  // namespace

void sgemm(Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
           std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  if (k == 0) {
    for (std::int64_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * ldc, n, 0.0f);
    return;
  }
  const SerialBlas serial;
  const auto transpose_a = kind == Gemm::tn ? CblasTrans : CblasNoTrans;
  const auto transpose_b = kind == Gemm::nt ? CblasTrans : CblasNoTrans;
  cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, blas_int(m), blas_int(n), blas_int(k), 1.0f, a, blas_int(lda), b,
              blas_int(ldb), accumulate ? 1.0f : 0.0f, c, blas_int(ldc));
}

const char* blas_kernel_for(const CpuFeatures& features) {
  if (features.avx512_bf16) return "Cooperlake";
  if (features.avx512) return "SkylakeX";
  if (features.avx2_fma) return "Haswell";
  return nullptr;
}

std::string blas_kernel_name() { return openblas_get_corename(); }

}  // namespace smoe::cpu
