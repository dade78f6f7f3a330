// exp and its relatives for `#pragma omp simd` loops: branch-free, so that the compiler turns them into vector code.
// A NaN stays a NaN and an infinity does what the mathematics says, because the trainer must see a broken value.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace smoe::cpu {

// e^x to 1 ulp (2 at the ends). x < -87.33 gives 0 (the result would be subnormal), x > 88.72 gives infinity.
[[gnu::always_inline]] inline float vector_exp(float x) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float round_to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves the integer in the low bits
  // x = n ln2 + r with |r| <= ln2 / 2; ln2 in two parts so that r is exact to rounding (Cody & Waite 1980).
  const float shifted = x * 1.44269504088896341f + round_to_integer;
  const float n = shifted - round_to_integer;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  // The minimax polynomial of Cephes' expf.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // Multiply by 2^n in the exponent bits.
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23);
  const float inside = std::bit_cast<float>(bits);
  const float above = x + infinity;  // infinity, or NaN where x is NaN
  const float result = x <= 88.7228f ? inside : above;
  return x < -87.3365f ? 0.0f : result;
}

[[gnu::always_inline]] inline float vector_sigmoid(float x) { return 1.0f / (1.0f + vector_exp(-x)); }

// Copies one row. On some CPUs memcpy turns rows of a few KiB into a string move that runs at half the speed.
inline void copy_row(const float* from, std::int64_t count, float* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

}  // namespace smoe::cpu
