// Numbers of either type, read as f32 and written rounded, in pieces of 16 bytes: the widest access that a thread has.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/bf16.h"
#include "kernels/cuda/device.h"
#include "kernels/tensor.h"

namespace smoe::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }

template <class A>
__device__ A from_float(float x) {
  if constexpr (std::is_same_v<A, float>)
    return x;
  else
    return Bf16{static_cast<std::uint16_t>(bf16_pair(x, 0.0f))};
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// W numbers side by side: one, or pieces of 16 bytes.
template <class A, int W>
struct alignas(sizeof(A) * W < 16 ? sizeof(A) * W : 16) Pack {
  A at[W];
};

template <int W, class A>
__device__ void load(const A* from, float (&x)[W]) {
  const auto pack = *reinterpret_cast<const Pack<A, W>*>(from);
#pragma unroll
  for (int i = 0; i < W; ++i) x[i] = to_float(pack.at[i]);
}

template <int W, class A>
__device__ void store(A* to, const float (&x)[W]) {
  if constexpr (std::is_same_v<A, Bf16> && W > 1) {
    Pack<std::uint32_t, W / 2> pairs;
#pragma unroll
    for (int i = 0; i < W / 2; ++i) pairs.at[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
    *reinterpret_cast<Pack<std::uint32_t, W / 2>*>(to) = pairs;
  } else {
    Pack<A, W> pack;
#pragma unroll
    for (int i = 0; i < W; ++i) pack.at[i] = from_float<A>(x[i]);
    *reinterpret_cast<Pack<A, W>*>(to) = pack;
  }
}

// Whether rows of so many numbers can be read in such pieces: every tensor begins at one, and a row is a number of them.
inline bool in_pieces(std::int64_t columns, int width, std::initializer_list<Tensor> tensors) {
  if (columns % width != 0) return false;
  for (const Tensor& tensor : tensors)
    if (reinterpret_cast<std::uintptr_t>(tensor.raw()) % 16 != 0) return false;
  return true;
}

// Calls f.operator()<A, W>() for the type of the numbers, and for the width at which rows of so many can be read.
template <class F>
void by_type(DType type, const F& f) {
  if (type == DType::bf16)
    f.template operator()<Bf16>();
  else
    f.template operator()<float>();
}
template <class A, class F>
void by_width(std::int64_t columns, std::initializer_list<Tensor> tensors, const F& f) {
  constexpr int width = 16 / sizeof(A);
  if (in_pieces(columns, width, tensors))
    f.template operator()<A, width>();
  else
    f.template operator()<A, 1>();
}
template <class F>
void by_type_and_width(DType type, std::int64_t columns, std::initializer_list<Tensor> tensors, const F& f) {
  by_type(type, [&]<class A>() { by_width<A>(columns, tensors, f); });
}

// The memory of a tensor whose type is known to be A's.
template <class A>
A* data(const Tensor& tensor) {
  if constexpr (std::is_same_v<A, float>)
    return tensor.empty() ? nullptr : tensor.f32();
  else
    return tensor.empty() ? nullptr : tensor.bf16();
}

}  // namespace smoe::cuda
