#include "kernels/cpu/blas.h"

#include <cblas.h>
#include <cpuid.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

extern "C" char* openblas_get_corename();

namespace smoe::cpu {
namespace {

bool made_by_intel() {
  unsigned eax = 0, name[3] = {};
  return __get_cpuid(0, &eax, &name[0], &name[2], &name[1]) && std::memcmp(name, "GenuineIntel", sizeof name) == 0;
}

// OpenBLAS picks its kernels by CPU model, and 0.3.21 gives a model newer than itself the AVX2 ones: a Zen 4 then runs
// its small products a third slower than with the AVX-512 kernels made for Intel, which it executes as well. The
// library reads OPENBLAS_CORETYPE in its own constructor; ours has a priority, so it runs before. It keeps its hands
// off Intel CPUs, which the library knows, and off a choice that the user made.
__attribute__((constructor(101))) void choose_blas_kernel() {
  const char* asked = std::getenv("OPENBLAS_CORETYPE");
  if ((asked && *asked) || made_by_intel()) return;
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl"))
    return;
  setenv("OPENBLAS_CORETYPE", __builtin_cpu_supports("avx512bf16") ? "Cooperlake" : "SkylakeX", 1);
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

std::string blas_kernel_name() { return openblas_get_corename(); }

}  // namespace smoe::cpu
