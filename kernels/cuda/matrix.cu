#include "kernels/cuda/matrix.h"

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "kernels/cuda/device.h"
#include "kernels/cuda/error.h"
#include "kernels/shared_library.h"
#include "kernels/cuda/matrix_plan.h"

namespace smoe::cuda {
namespace {

constexpr int cuda_major = CUDART_VERSION / 1000;

struct CublasLt {
  SharedLibrary library{"libcublasLt.so." + std::to_string(cuda_major),
                        "NVIDIA's cuBLAS of CUDA " + std::to_string(cuda_major) + " (the package libcublas-" +
                            std::to_string(cuda_major) + "-" + std::to_string(CUDART_VERSION % 1000 / 10) +
                            ", or the wheel nvidia-cublas)"};
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusName) status_name;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  // The descriptors lie where the caller has room, so that a call takes nothing from the heap.
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init;
  decltype(&cublasLtMatmulDescInit_internal) desc_init;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  CublasLt() {
    library.find(create, "cublasLtCreate");
    library.find(destroy, "cublasLtDestroy");
    library.find(status_name, "cublasLtGetStatusName");
    library.find(matmul, "cublasLtMatmul");
    library.find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    library.find(layout_init, "cublasLtMatrixLayoutInit_internal");
    library.find(desc_init, "cublasLtMatmulDescInit_internal");
    library.find(desc_set, "cublasLtMatmulDescSetAttribute");
    library.find(preference_init, "cublasLtMatmulPreferenceInit_internal");
    library.find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
  }
};

cudaDataType type_of(DType type) { return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

std::string text_of(const Product& p) {
  const char* const kinds[] = {"nt", "nn", "tn"};
  return std::string("a product ") + kinds[static_cast<int>(p.kind)] + " of " + std::to_string(p.m) + " x " +
         std::to_string(p.n) + " x " + std::to_string(p.k);
}

// NVIDIA's advice: 32 MiB on Hopper and later. As much everywhere at all times: sums are split by what there is room for.
std::size_t workspace_bytes_of_device() {
  int device = 0, major = 0;
  check("the device", cudaGetDevice(&device));
  check("the device", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return std::size_t{major >= 9 ? 32u : 8u} << 20;
}

}  // namespace

struct Matrix::Library {
  struct Layouts {
    cublasLtMatrixLayoutOpaque_t first, second, out;
  };

  const Stream& stream;
  CublasLt lt;
  struct Destroy {
    decltype(&cublasLtDestroy) destroy;
    void operator()(cublasLtHandle_t made) const noexcept { destroy(made); }
  };
  std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, Destroy> handle{nullptr, Destroy{lt.destroy}};
  cublasLtMatmulDescOpaque_t descriptions[3];  // by Gemm
  std::size_t workspace_bytes = workspace_bytes_of_device();
  Workspace workspace{stream};

  // Of all the shapes of a model there are some hundreds. Should a run go through more than this, they are found anew.
  static constexpr std::size_t most_plans = 8192;
  std::unordered_map<PlanKey, cublasLtMatmulAlgo_t, PlanHash> plans;

  explicit Library(const Stream& of) : stream(of) {
    for (const Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn}) describe(kind);
    plans.reserve(most_plans);
    cublasLtHandle_t made = nullptr;
    expect(lt.create(&made), "cuBLASLt");
    handle.reset(made);
    workspace.bytes(workspace_bytes);
  }
  ~Library() { cudaStreamSynchronize(stream); }  // products under way are of the handle, and use its workspace
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  void expect(cublasStatus_t status, const std::string& what) const {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw std::runtime_error("cuda: " + what + ": " + lt.status_name(status) + " from cuBLASLt");
  }

  // Sums in f32, whose scale is of the host. Never TF32: the products of an f32 model are f32's.
  void describe(Gemm kind) {
    cublasLtMatmulDescOpaque_t& desc = descriptions[static_cast<int>(kind)];
    expect(lt.desc_init(&desc, sizeof desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product's description");
    const ByColumns call =
        by_columns({kind, 1, 1, 1, nullptr, nullptr, nullptr, DType::f32, DType::f32, Write::assign});
    const auto set = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
      const cublasOperation_t how = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      expect(lt.desc_set(&desc, which, &how, sizeof how), "a product's description");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, call.first.transposed);
    set(CUBLASLT_MATMUL_DESC_TRANSB, call.second.transposed);
  }

  Layouts layouts_of(const Product& p) const {
    const ByColumns call = by_columns(p);
    Layouts layouts;
    const auto init = [&](cublasLtMatrixLayoutOpaque_t& layout, DType type, std::int64_t rows, std::int64_t columns,
                          std::int64_t stride) {
      expect(lt.layout_init(&layout, sizeof layout, type_of(type), static_cast<std::uint64_t>(rows),
                            static_cast<std::uint64_t>(columns), stride),
             "a matrix of a product");
    };
    init(layouts.first, p.in, call.first.rows, call.first.columns, call.first.stride);
    init(layouts.second, p.in, call.second.rows, call.second.columns, call.second.stride);
    init(layouts.out, p.out, call.rows, call.columns, call.stride);
    return layouts;
  }

  // The library's first choice.
  cublasLtMatmulAlgo_t ask(const Product& p, const PlanKey& key) {
    Product asked = p;
    asked.m = key.m, asked.n = key.n, asked.k = key.k;
    Layouts layouts = layouts_of(asked);
    cublasLtMatmulPreferenceOpaque_t preference;
    expect(lt.preference_init(&preference, sizeof preference), text_of(p));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
      expect(lt.preference_set(&preference, which, &value, sizeof value), text_of(p));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    // B is the library's A.
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{key.alignments[1]});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{key.alignments[0]});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::uint32_t{key.alignments[2]});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::uint32_t{key.alignments[2]});
    // A sum that is split is added up in f32: in the output, only where that is f32.
    const auto in_output = static_cast<std::uint32_t>(p.out == DType::f32 ? CUBLASLT_REDUCTION_SCHEME_INPLACE
                                                                          : CUBLASLT_REDUCTION_SCHEME_NONE);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_output | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        lt.heuristic(handle.get(), &descriptions[static_cast<int>(p.kind)], &layouts.first, &layouts.second,
                     &layouts.out, &layouts.out, &preference, 1, &found, &count);
    if (status == CUBLAS_STATUS_SUCCESS && count == 0)
      throw std::runtime_error("cuda: " + text_of(p) + ": cuBLASLt has no algorithm for it");
    expect(status, text_of(p));
    expect(found.state, text_of(p));
    return found.algo;
  }

  const cublasLtMatmulAlgo_t& plan(const Product& p, const PlanKey& key) {
    if (const auto known = plans.find(key); known != plans.end()) return known->second;
    if (plans.size() == most_plans) plans.clear();
    return plans.emplace(key, ask(p, key)).first->second;
  }

  cublasStatus_t run(const Product& p, Layouts& layouts, const PlanKey& key) {
    const float one = 1.0f, beta = p.write == Write::add ? 1.0f : 0.0f;
    return lt.matmul(handle.get(), &descriptions[static_cast<int>(p.kind)], &one, p.b, &layouts.first, p.a,
                     &layouts.second, &beta, p.c, &layouts.out, p.c, &layouts.out, &plan(p, key),
                     workspace.bytes(workspace_bytes), workspace_bytes, stream);
  }
};

Matrix::Matrix(const Stream& stream) : library_(new Library(stream)) {}
Matrix::~Matrix() = default;

void Matrix::multiply(const Product& p) {
  Library::Layouts layouts = library_->layouts_of(p);
  const PlanKey shared = shared_key(p), exact = exact_key(p);
  cublasStatus_t status = library_->run(p, layouts, shared);
  // An algorithm that does not suit a neighbour after all is refused before anything is queued. It is asked each time, so
  // that the same product is computed in the same way whatever came before it.
  if ((status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) && shared != exact)
    status = library_->run(p, layouts, exact);
  if (status != CUBLAS_STATUS_SUCCESS) library_->expect(status, text_of(p));  // no text for what succeeds
}

}  // namespace smoe::cuda
