// cuBLASLt by the CPU's products. A wrong use, which the library would refuse or read past the end for, is an exception.
#include "tests/cuda_on_host/cublasLt.h"

#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/shared_library.h"
#include "nccl.h"

struct cublasLtContext {
  std::unique_ptr<smoe::Backend> cpu = smoe::make_cpu_backend(1);
};

namespace cuda_on_host {
namespace {

struct Layout {
  cudaDataType type;
  std::int64_t rows, cols, ld;
};
struct Description {
  bool first_transposed, second_transposed;
};
struct Preference {
  std::uint64_t workspace;
  std::uint32_t reductions, alignments[4];  // of A, B, C, D
};
struct Algorithm {
  std::uint64_t workspace;
  std::int64_t rows, cols, depth;
  std::uint32_t alignments[4];
};

void expect(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("cuBLASLt: ") + what);
}

template <class T, class Opaque>
T& inside(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque));
  return *reinterpret_cast<T*>(opaque);
}
template <class T, class Opaque>
cublasStatus_t init(Opaque* opaque, std::size_t size, const T& value) {
  expect(size == sizeof(Opaque), "a descriptor of another size");
  std::memset(opaque, 0xff, sizeof(Opaque));
  ::new (static_cast<void*>(opaque)) T(value);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t set(T& to, const void* value, std::size_t size) {
  expect(size == sizeof(T), "an attribute of another size");
  std::memcpy(&to, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

// The sizes of a product, if its operands belong together.
Algorithm sizes_of(const Description& how, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  const std::int64_t rows = how.first_transposed ? a.cols : a.rows, depth = how.first_transposed ? a.rows : a.cols;
  const std::int64_t cols = how.second_transposed ? b.rows : b.cols;
  expect(depth == (how.second_transposed ? b.cols : b.rows), "operands that share no depth");
  for (const Layout& out : {c, d}) expect(out.rows == rows && out.cols == cols, "an output of another size");
  for (const Layout& layout : {a, b, c, d})
    expect(layout.rows > 0 && layout.cols > 0 && layout.ld >= layout.rows, "a matrix without entries, or rows");
  expect(a.type == b.type && c.type == d.type, "types that are mixed");
  expect(a.type == CUDA_R_16BF || c.type == CUDA_R_32F, "an output narrower than its operands");
  return {0, rows, cols, depth, {}};
}

smoe::Tensor by_rows(const Layout& layout, const void* data) {
  expect(layout.ld == layout.rows, "a matrix that is not dense");
  return smoe::Tensor(const_cast<void*>(data), layout.type == CUDA_R_16BF ? smoe::DType::bf16 : smoe::DType::f32,
                      {layout.cols, layout.rows});
}

}  // namespace

Products& products() {
  static Products the_products;
  return the_products;
}

void* function_named(const std::string& name) {
#define SMOE_FUNCTION(function) \
  if (name == #function) return reinterpret_cast<void*>(&function)
  SMOE_FUNCTION(cublasLtCreate);
  SMOE_FUNCTION(cublasLtDestroy);
  SMOE_FUNCTION(cublasLtGetStatusName);
  SMOE_FUNCTION(cublasLtMatrixLayoutInit_internal);
  SMOE_FUNCTION(cublasLtMatmulDescInit_internal);
  SMOE_FUNCTION(cublasLtMatmulDescSetAttribute);
  SMOE_FUNCTION(cublasLtMatmulPreferenceInit_internal);
  SMOE_FUNCTION(cublasLtMatmulPreferenceSetAttribute);
  SMOE_FUNCTION(cublasLtMatmulAlgoGetHeuristic);
  SMOE_FUNCTION(cublasLtMatmul);
#undef SMOE_FUNCTION
  return nccl_function_named(name);
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (call_fails()) return CUBLAS_STATUS_NOT_SUPPORTED;
  *handle = new cublasLtContext;
  ++live().library_handles;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  --live().library_handles;
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, std::size_t size, cudaDataType type,
                                                 std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  return init(layout, size, Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols), ld});
}
cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, std::size_t size, cublasComputeType_t,
                                               cudaDataType) {
  if (call_fails()) return CUBLAS_STATUS_NOT_SUPPORTED;
  return init(desc, size, Description{false, false});
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t which,
                                              const void* value, std::size_t size) {
  if (call_fails()) return CUBLAS_STATUS_NOT_SUPPORTED;
  cublasOperation_t how{};
  set(how, value, size);
  auto& description = inside<Description>(desc);
  (which == CUBLASLT_MATMUL_DESC_TRANSA ? description.first_transposed : description.second_transposed) =
      how == CUBLAS_OP_T;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, std::size_t size) {
  return init(preference, size, Preference{0, 7, {256, 256, 256, 256}});
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which, const void* value,
                                                    std::size_t size) {
  auto& preferred = inside<Preference>(preference);
  if (which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(preferred.workspace, value, size);
  if (which == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return set(preferred.reductions, value, size);
  return set(preferred.alignments[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t results[], int* found) {
  expect(wanted >= 1, "no algorithm is asked for");
  ++products().questions;
  Algorithm algorithm =
      sizes_of(inside<Description>(desc), inside<Layout>(a), inside<Layout>(b), inside<Layout>(c), inside<Layout>(d));
  const auto& preferred = inside<Preference>(preference);
  expect(inside<Layout>(d).type == CUDA_R_32F || (preferred.reductions & ~CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) == 0,
         "parts of a sum would be rounded to bf16");
  algorithm.workspace = preferred.workspace;
  std::memcpy(algorithm.alignments, preferred.alignments, sizeof algorithm.alignments);
  results[0] = {{}, algorithm.workspace, CUBLAS_STATUS_SUCCESS, 1.0f, {}};
  *found = 1;
  return init(&results[0].algo, sizeof results[0].algo, algorithm);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const auto& how = inside<Description>(desc);
  const Layout first = inside<Layout>(a_layout), second = inside<Layout>(b_layout), out = inside<Layout>(d_layout);
  const Algorithm asked = sizes_of(how, first, second, inside<Layout>(c_layout), out);
  const auto& algorithm = *reinterpret_cast<const Algorithm*>(algo);
  expect(workspace && workspace_bytes >= algorithm.workspace, "less workspace than the algorithm was found for");
  const void* const operands[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    expect(reinterpret_cast<std::uintptr_t>(operands[i]) % algorithm.alignments[i] == 0,
           "an operand is aligned less than the algorithm was found for");
  const bool same = asked.rows == algorithm.rows && asked.cols == algorithm.cols && asked.depth == algorithm.depth;
  if (products().choosy && !same) return ++products().refused, CUBLAS_STATUS_NOT_SUPPORTED;
  expect(*static_cast<const float*>(alpha) == 1 && c == d, "a product that nobody here asks for");
  const float scale = *static_cast<const float*>(beta);
  expect(scale == 0 || scale == 1, "a product that nobody here asks for");
  expect(!(how.first_transposed && how.second_transposed), "a product that nobody here asks for");

  // Read by rows, all of it is transposed, and the operands change places.
  const smoe::Gemm kind = how.first_transposed    ? smoe::Gemm::nt
                          : how.second_transposed ? smoe::Gemm::tn
                                                  : smoe::Gemm::nn;
  queue(stream, [=, cpu = handle->cpu.get()] {
    cpu->gemm(kind, by_rows(second, b), by_rows(first, a), by_rows(out, d),
              scale == 0 ? smoe::Write::assign : smoe::Write::add);
  });
  return CUBLAS_STATUS_SUCCESS;
}
