// Eight floats at a time, by GCC's vector extensions: the compiler turns them into what the CPU has.
#pragma once

namespace smoe::cpu {

#if defined(__AVX2__) && defined(__FMA__)
constexpr bool built_for_avx2 = true;
#else
constexpr bool built_for_avx2 = false;
#endif

using V8 [[gnu::vector_size(32)]] = float;
using LooseV8 [[gnu::vector_size(32), gnu::aligned(4), gnu::may_alias]] = float;  // anywhere in memory

[[gnu::always_inline]] inline V8 load8(const float* from) { return *reinterpret_cast<const LooseV8*>(from); }
[[gnu::always_inline]] inline void store8(float* to, V8 value) { *reinterpret_cast<LooseV8*>(to) = value; }

// Rows from, from + stride, ... become columns; of rows that are not there (count < 8) come zeros.
[[gnu::always_inline]] inline void transpose8(const float* from, long stride, int count, V8 (&out)[8]) {
  V8 r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = i < count ? load8(from + i * stride) : V8{};
  for (int i = 0; i < 8; i += 2) {
    s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + j] = __builtin_shufflevector(s[i + j], s[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + j + 2] = __builtin_shufflevector(s[i + j], s[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int j = 0; j < 4; ++j) {
    out[j] = __builtin_shufflevector(r[j], r[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    out[j + 4] = __builtin_shufflevector(r[j], r[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

}  // namespace smoe::cpu
