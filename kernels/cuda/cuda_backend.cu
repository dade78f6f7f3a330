#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels/cuda/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/ranges.h"

namespace smoe {
namespace {

std::string version(int number) {  // 13000: "13.0"
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

int ask_device(auto attribute) {
  int device = 0, value = 0;
  cuda::check("the device", cudaGetDevice(&device));
  cuda::check("the device", cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

}  // namespace

std::string cuda_missing() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (code == cudaSuccess && count > 0) {
    const int major = ask_device(cudaDevAttrComputeCapabilityMajor),
              minor = ask_device(cudaDevAttrComputeCapabilityMinor);
    if (major >= 8) return {};
    return "found a GPU of compute capability " + std::to_string(major) + "." + std::to_string(minor) +
           "; expected 8.0 (Ampere) or later";
  }
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

CudaBackend::CudaBackend() {
  multiprocessors_ = ask_device(cudaDevAttrMultiProcessorCount);
  most_shared_bytes_ = ask_device(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

namespace {
using namespace cuda;

// Numbers from -1 to 1 without pattern: how fast tensor cores run depends on how many bits change, and with zeros it is a
// rate that no model sees.
__global__ void noise_kernel(Bf16* to, std::uint32_t seed, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9e3779b1u + seed;  // a mixer of 32 bits (Wellons' lowbias32)
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  to[i] = from_float<Bf16>(static_cast<float>(x >> 8) * 0x1p-23f - 1.0f);
}

// The product that a card is measured by: large, but for one with few multiprocessors, where it would take long.
std::int64_t peak_size(int multiprocessors) { return multiprocessors >= 32 ? 8192 : multiprocessors >= 8 ? 2048 : 128; }

// flop/s of the fastest of a few products [n,n] [n,n]^T in bf16; bad_alloc where there is no room for them.
double measure_product(Stream& stream, Matrix& matrix, std::int64_t n) {
  struct Room {
    const Stream& stream;
    void* data;
    ~Room() { give_back(stream, data); }
  };
  const Room room{stream, take(stream, static_cast<std::size_t>(3 * n * n) * sizeof(Bf16))};
  auto* const a = static_cast<Bf16*>(room.data);
  launch(stream, "noise", over(2 * n * n), noise_kernel, a, 1u, 2 * n * n);
  const Product product{Gemm::nt, n, n, n, a, a + n * n, a + 2 * n * n, DType::bf16, DType::bf16, Write::assign};
  const OwnedEvent before = make_timed_event(), after = make_timed_event();
  double best = 0;
  matrix.multiply(product);  // the first one also loads it
  for (int round = 0; round < 5; ++round) {
    check("an event", cudaEventRecord(before.get(), stream));
    matrix.multiply(product);
    check("an event", cudaEventRecord(after.get(), stream));
    check("a product", cudaEventSynchronize(after.get()));
    float milliseconds = 0;
    check("a product", cudaEventElapsedTime(&milliseconds, before.get(), after.get()));
    const double size = static_cast<double>(n);
    best = std::max(best, 2 * size * size * size / (1e-3 * static_cast<double>(milliseconds)));
  }
  return best;
}

}  // namespace

DeviceProfile CudaBackend::measure_profile() {
  int device = 0;
  cudaDeviceProp properties;
  check("the device", cudaGetDevice(&device));
  check("the device", cudaGetDeviceProperties(&properties, device));
  DeviceProfile profile{.name = std::string(properties.name) + " (sm_" + std::to_string(properties.major) +
                                std::to_string(properties.minor) + ", " +
                                std::to_string(properties.multiProcessorCount) + " multiprocessors, " +
                                std::to_string(properties.totalGlobalMem >> 30) + " GiB)",
                        .threads = 1,
                        .product_kernel = "cuBLASLt",
                        .peak_flops = 0,
                        .peak_form = {},
                        .kind = Device::cuda};
  for (std::int64_t n = peak_size(multiprocessors_); profile.peak_flops == 0; n /= 2) try {
      profile.peak_flops = measure_product(stream_, matrix_, n);
      profile.peak_form = "bf16 product " + std::to_string(n) + "^3";
    } catch (const std::bad_alloc&) {  // memory is short: a smaller one says nearly as much
      if (n < 512) throw;
    }
  return profile;
}

std::unique_ptr<Backend> make_cuda_backend() {
  if (const std::string missing = cuda_missing(); !missing.empty()) throw std::runtime_error("device: " + missing);
  return cuda::with_ranges(std::make_unique<CudaBackend>());
}

}  // namespace smoe
