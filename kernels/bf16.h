// bfloat16: the upper half of an f32, 8 bits of which are significant.
#pragma once

#include <bit>
#include <cstdint>

namespace smoe {

struct Bf16 {
  std::uint16_t bits = 0;
};

constexpr float widened(Bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

// To nearest, ties to even. A NaN stays one.
constexpr Bf16 rounded(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet_nan = bits >> 16 | 0x40;
  return {static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : nearest)};
}

}  // namespace smoe
