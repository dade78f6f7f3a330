// All that kernels take from CUDA. The other files of this folder include no header of CUDA for device code: tests/cuda_on_host
// has a device.h of its own, by which they are compiled for the CPU, where each kernel runs over the op cases.
//
// A kernel keeps to what both give: threadIdx, blockIdx, blockDim and gridDim (x alone), __shared__ arrays of fixed size
// in kernels, dynamic_shared(), __syncthreads, __syncwarp, shuffles, ballots, matches and maxima of a warp, atomics on
// integers, and what is below. Shared arrays are declared in kernels, whose names end in _kernel.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "kernels/cuda/runtime.h"

namespace smoe::cuda {

// The bytes of shared memory that the launch asked for, aligned to 16.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char smoe_dynamic_shared[];
  return reinterpret_cast<T*>(smoe_dynamic_shared);
}

// ---- copies to shared memory that go on behind the thread's back ----

// `bytes` of the device's memory, 4 or 16, and aligned to as many, to shared memory; where they are not `there`, zeros, and
// nothing is read. What was copied is there for this thread when it has waited, for others behind a barrier after that.
template <int bytes>
__device__ void copy_async(void* to, const void* from, bool there) {
  static_assert(bytes == 4 || bytes == 16);
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  if constexpr (bytes == 16)  // past the first cache, which keeps nothing that is read once a block
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(there ? 4 : 0)
                 : "memory");
}
// The copies of this thread since the last call are one group, which may be none.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all groups of this thread are done but the last `left`.
template <int left>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

// ---- numbers ----

// 2 to the x, to 2 units of the last place; what is too small for a normal number is 0.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- tensor cores: a warp together, lane 4 i + j ----

// d += a b, a 16 x 16 and b 16 x 8 of bf16, in pairs. a: rows i and i + 8 of columns 2j, 2j + 1, then of 2j + 8, 2j + 9. b: rows 2j, 2j + 1 of
// column i, then 2j + 8, 2j + 9. d: columns 2j and 2j + 1 of row i, then of row i + 8.
__device__ inline void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of bf16 in shared memory: lane 8 m + r brings row r of matrix m. m[k] takes numbers 2j, 2j + 1 of row i of matrix k,
// or, transposed, numbers i of rows 2j, 2j + 1.
__device__ inline void load_matrices(std::uint32_t (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

// Two numbers rounded to bf16, the first in the lower half.
__device__ inline std::uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

}  // namespace smoe::cuda
