#include "kernels/cuda/cuda_backend.h"

#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/cuda/error.h"

namespace smoe {
namespace {

std::string version(int number) {  // 13000: "13.0"
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

int multiprocessors() {
  if (const std::string missing = cuda_missing(); !missing.empty()) throw std::runtime_error("device: " + missing);
  int device = 0, count = 0;
  cuda::check("the device", cudaGetDevice(&device));
  cuda::check("the device", cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

}  // namespace

std::string cuda_missing() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (code == cudaSuccess && count > 0) return {};
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0)
    return "found no NVIDIA driver (libcuda.so.1); expected one for CUDA " + version(runtime) + " or later";
  if (code == cudaErrorInsufficientDriver)
    return "the NVIDIA driver here is for CUDA " + version(driver) + "; expected one for CUDA " + version(runtime) +
           " or later";
  if (code == cudaErrorNoDevice || count == 0)
    return "found an NVIDIA driver and no GPU that this process may use (CUDA_VISIBLE_DEVICES hides those it does not name)";
  return std::string("the NVIDIA driver here does not answer: ") + cudaGetErrorString(code);
}

CudaBackend::CudaBackend() : multiprocessors_(multiprocessors()) {}

DeviceProfile CudaBackend::measure_profile() {
  int device = 0;
  cudaDeviceProp properties;
  cuda::check("the device", cudaGetDevice(&device));
  cuda::check("the device", cudaGetDeviceProperties(&properties, device));
  return {.name = std::string(properties.name) + " (sm_" + std::to_string(properties.major) +
                  std::to_string(properties.minor) + ")",
          .threads = 1,
          .product_kernel = "cuBLASLt",
          .peak_form = {}};
}

std::unique_ptr<Backend> make_cuda_backend() { return std::make_unique<CudaBackend>(); }

}  // namespace smoe
