// The device.h by which kernels are compiled as C++ for the CPU: what CUDA gives a kernel, and the calls of its runtime that
// kernels/cuda makes, in their names. A grid's blocks run one after another, a block's threads as fibers
// (tests/cuda_on_host/block.h); a stream's work is queued (runtime.cpp).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/bf16.h"
#include "tests/cuda_on_host/block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time. All shared memory lies in one section (shared_memory.ld), where it is spoilt before a block runs.
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline const auto& threadIdx = cuda_on_host::now.thread;
inline const auto& blockIdx = cuda_on_host::now.block;
inline const auto& blockDim = cuda_on_host::now.block_size;
inline const auto& gridDim = cuda_on_host::now.grid_size;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

// ---- a block and its warps ----
inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  cuda_on_host::block_barrier({file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_host::warp_barrier(mask); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return cuda_on_host::shuffle(mask, value, cuda_on_host::Shuffle::from, lane, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  return cuda_on_host::shuffle(mask, value, cuda_on_host::Shuffle::across, distance, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_on_host::shuffle(mask, value, cuda_on_host::Shuffle::up, static_cast<int>(distance), width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_on_host::shuffle(mask, value, cuda_on_host::Shuffle::down, static_cast<int>(distance), width);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return cuda_on_host::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return cuda_on_host::ballot(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return cuda_on_host::ballot(mask, predicate == 0) == 0; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return cuda_on_host::match(mask, bits);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) { return cuda_on_host::largest(mask, value); }
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) { return ~cuda_on_host::largest(mask, ~value); }

// ---- atomics: the blocks run one after another, and a fiber is left at barriers alone ----
inline int atomicAdd(int* at, int value) { return std::exchange(*at, *at + value); }
inline unsigned atomicAdd(unsigned* at, unsigned value) { return std::exchange(*at, *at + value); }
inline int atomicMax(int* at, int value) { return std::exchange(*at, std::max(*at, value)); }
inline int atomicExch(int* at, int value) { return std::exchange(*at, value); }
inline void __threadfence() {}
inline void __threadfence_system() {}

// ---- numbers ----
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * std::uint64_t{b}) >> 32);
}
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::isnan;

// ---- the runtime ----
enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidConfiguration,
  cudaErrorInsufficientDriver,
  cudaErrorNoDevice,
  cudaErrorLaunchFailure,
  cudaErrorNotReady,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaMemPoolAttr {
  cudaMemPoolAttrReleaseThreshold,
  cudaMemPoolAttrReservedMemCurrent,
  cudaMemPoolAttrReservedMemHigh,
  cudaMemPoolAttrUsedMemCurrent,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;
using cudaStream_t = cuda_on_host::Stream*;
using cudaEvent_t = cuda_on_host::Event*;
using cudaMemPool_t = cuda_on_host::Machine*;
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int multiProcessorCount;
  int major, minor;
  struct {
    char bytes[16];
  } uuid;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

const char* cudaGetErrorString(cudaError_t code);
const char* cudaGetErrorName(cudaError_t code);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytes);
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream);
cudaError_t cudaMallocHost(void** data, std::size_t bytes);
cudaError_t cudaFreeHost(void* data);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

// The arguments are copied when it is called, as a device's are.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const cuda_on_host::Launch launch{config->gridDim.x, config->blockDim.x, config->dynamicSmemBytes,
                                    reinterpret_cast<const void*>(kernel)};
  return cuda_on_host::queue_launch(
             config->stream, launch,
             [kernel, ... copies = static_cast<Parameters>(std::forward<Arguments>(arguments))] { kernel(copies...); })
             ? cudaSuccess
             : cudaErrorInvalidConfiguration;
}

namespace smoe::cuda {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_on_host::dynamic_shared_memory());
}

inline std::uint32_t bf16_pair(float low, float high) {
  return std::uint32_t{rounded(low).bits} | std::uint32_t{rounded(high).bits} << 16;
}

// ---- copies to shared memory that go on behind the thread's back: done in the wait, as late as can be ----
template <int bytes>
void copy_async(void* to, const void* from, bool there) {
  static_assert(bytes == 4 || bytes == 16);
  const auto is_between = [](const void* at) { return std::bit_cast<std::uintptr_t>(at) % bytes != 0; };
  if (is_between(to) || (there && is_between(from)))
    throw std::logic_error("copy_async: an address between " + std::to_string(bytes) + " bytes");
  if (there) std::memcpy(to, from, bytes);  // for the sanitizer, which is to name this line
  std::memset(to, 0xff, bytes);             // NaN, as all shared memory that was not written
  cuda_on_host::async_copies().back().push_back({to, from, bytes, there});
}
inline void commit_copies() { cuda_on_host::async_copies().emplace_back(); }
template <int left>
void wait_for_copies() {
  auto& groups = cuda_on_host::async_copies();  // the open one is not waited for
  for (; groups.size() > left + 1; groups.pop_front())
    for (const auto& [to, from, bytes, there] : groups.front())
      if (there)
        std::memcpy(to, from, bytes);
      else
        std::memset(to, 0, bytes);
}

// ---- numbers ----
inline float flushed_to_zero(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? 0.0f : x; }
inline float power_of_two(float x) { return flushed_to_zero(std::exp2(flushed_to_zero(x))); }

// ---- tensor cores: the lanes lay what they bring on a table, and each works out what it takes away ----
template <class T>
class WarpTable {
 public:
  explicit WarpTable(const T& brought) {
    table()[threadIdx.x] = brought;
    __syncwarp();
  }
  ~WarpTable() { __syncwarp(); }
  WarpTable(const WarpTable&) = delete;
  WarpTable& operator=(const WarpTable&) = delete;
  const T& of(unsigned lane) const { return table()[threadIdx.x / 32 * 32 + lane]; }

 private:
  static T* table() {
    static T the_table[1024];
    return the_table;
  }
};

inline float half_of(std::uint32_t pair, unsigned which) {
  return __uint_as_float(which == 0 ? pair << 16 : pair & 0xffff0000u);
}

inline void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  struct Pairs {
    std::uint32_t a[4], b[2];
  };
  const WarpTable<Pairs> table({{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const unsigned i = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
  for (unsigned n = 0; n < 4; ++n) {
    const unsigned lower = n / 2, column = 2 * j + n % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned holder = k % 8 / 2, right = k / 8;
      d[n] += half_of(table.of(4 * i + holder).a[2 * right + lower], k % 2) *
              half_of(table.of(4 * column + holder).b[right], k % 2);
    }
  }
}

inline std::uint32_t pair_at(const void* row, unsigned number, const void* other_row, unsigned other_number) {
  std::uint16_t low, high;
  std::memcpy(&low, static_cast<const std::uint16_t*>(row) + number, sizeof low);
  std::memcpy(&high, static_cast<const std::uint16_t*>(other_row) + other_number, sizeof high);
  return std::uint32_t{low} | std::uint32_t{high} << 16;
}
inline void load_matrices(std::uint32_t (&m)[4], const void* row) {
  if (std::bit_cast<std::uintptr_t>(row) % 16 != 0)
    throw std::logic_error("load_matrices: a row begins between 16 bytes");
  const WarpTable<const void*> rows(row);
  const unsigned i = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
  for (unsigned k = 0; k < 4; ++k) m[k] = pair_at(rows.of(8 * k + i), 2 * j, rows.of(8 * k + i), 2 * j + 1);
}
inline void load_matrices_transposed(std::uint32_t (&m)[4], const void* row) {
  if (std::bit_cast<std::uintptr_t>(row) % 16 != 0)
    throw std::logic_error("load_matrices: a row begins between 16 bytes");
  const WarpTable<const void*> rows(row);
  const unsigned i = threadIdx.x % 32 / 4, j = threadIdx.x % 4;
  for (unsigned k = 0; k < 4; ++k) m[k] = pair_at(rows.of(8 * k + 2 * j), i, rows.of(8 * k + 2 * j + 1), i);
}

}  // namespace smoe::cuda
