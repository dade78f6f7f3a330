// The numbers of a tensor's bytes, of any type that weights have, as f64 and back.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>

#include "data/files/safetensors.h"

namespace smoe {

// To one of the two floats around x: to x where it is one, else to the one whose last bit is 1. Rounded again, to a type
// of at least two bits fewer, this is x rounded once.
inline float rounded_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || !std::isfinite(nearest)) return nearest;
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (bits & 1) return nearest;
  const bool too_large = std::abs(static_cast<double>(nearest)) > std::abs(x);
  return std::bit_cast<float>(too_large ? bits - 1 : bits + 1);
}

struct StoredF64 {
  using Bits = double;
  static double widened(Bits x) { return x; }
  static Bits rounded(double x) { return x; }
};
struct StoredF32 {
  using Bits = float;
  static double widened(Bits x) { return static_cast<double>(x); }
  static Bits rounded(double x) { return static_cast<float>(x); }
};
struct StoredBf16 {
  using Bits = std::uint16_t;
  static double widened(Bits x) { return static_cast<double>(f32_from_bf16(x)); }
  static Bits rounded(double x) { return bf16_from_f32(rounded_to_odd(x)); }
};
struct StoredF16 {
  using Bits = std::uint16_t;
  static double widened(Bits x) { return static_cast<double>(f32_from_f16(x)); }
  static Bits rounded(double x) { return f16_from_f32(rounded_to_odd(x)); }
};

template <class Visit>
auto visit_stored(TensorType type, Visit&& visit) {
  switch (type) {
    case TensorType::f64: return visit(StoredF64{});
    case TensorType::f32: return visit(StoredF32{});
    case TensorType::bf16: return visit(StoredBf16{});
    case TensorType::f16: return visit(StoredF16{});
    default: throw std::logic_error("a type that no weight is read of");
  }
}

template <class Stored>
double stored_number(std::span<const std::byte> bytes, std::size_t index) {
  typename Stored::Bits bits;
  std::memcpy(&bits, bytes.data() + index * sizeof(bits), sizeof(bits));
  return Stored::widened(bits);
}
template <class Stored>
void store_number(std::span<std::byte> bytes, std::size_t index, double number) {
  const typename Stored::Bits bits = Stored::rounded(number);
  std::memcpy(bytes.data() + index * sizeof(bits), &bits, sizeof(bits));
}

}  // namespace smoe
