#include "kernels/cpu/blas.h"

#include <cblas.h>
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" char* openblas_get_corename();
// Lends a work area, one that was given back or else a new one. Never returns where there is no memory for a new one.
extern "C" void* blas_memory_alloc(int purpose);
extern "C" void blas_memory_free(void* area);

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

constexpr std::size_t work_area_bytes = (std::size_t{128} << 20) + (std::size_t{64} << 10);  // with what surrounds it
constexpr int most_work_areas = 128;  // fewer than the library has places for

bool has_room(std::size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return false;
  ::munmap(at, bytes);
  return true;
}

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

void reserve_work_areas(int threads) {
  const auto wanted = static_cast<std::size_t>(std::min(threads, most_work_areas));
  std::vector<void*> areas;  // all held at once, so that they are different ones
  while (areas.size() < wanted && has_room(work_area_bytes)) areas.push_back(blas_memory_alloc(0));
  for (void* area : areas) blas_memory_free(area);
  if (areas.size() < wanted)
    throw std::runtime_error("out of memory: matrix products on " + std::to_string(threads) +
                             " thread(s) want 128 MiB of address space for each, " + "and the system gave it to " +
                             std::to_string(areas.size()) + ": raise the limit (ulimit -v), or take fewer threads");
}

const char* blas_kernel_for(const CpuFeatures& features) {
  if (features.avx512_bf16) return "Cooperlake";
  if (features.avx512) return "SkylakeX";
  if (features.avx2_fma) return "Haswell";
  return nullptr;
}

std::string blas_kernel_name() { return openblas_get_corename(); }

}  // namespace smoe::cpu
