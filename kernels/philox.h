// Philox4x32-10 (Salmon et al., SC 2011): a counter-based generator. A number is a pure function of (key, counter), so
// any rank can produce its own slice of a tensor without producing the rest.
#pragma once

#include <array>
#include <cstdint>

namespace smoe {

// One of the ten rounds, on a counter of four words; the caller moves the key on by next_philox_key between them.
[[gnu::always_inline]] constexpr void philox_round(std::uint32_t& c0, std::uint32_t& c1, std::uint32_t& c2,
                                                   std::uint32_t& c3, std::uint32_t k0, std::uint32_t k1) {
  const std::uint64_t a = std::uint64_t{0xD2511F53} * c0, b = std::uint64_t{0xCD9E8D57} * c2;
  c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
  c1 = static_cast<std::uint32_t>(b);
  c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
  c3 = static_cast<std::uint32_t>(a);
}
constexpr void next_philox_key(std::uint32_t& k0, std::uint32_t& k1) {
  k0 += 0x9E3779B9;
  k1 += 0xBB67AE85;
}

inline std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low,
                                           std::uint64_t counter_high = 0) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c = {
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    philox_round(c[0], c[1], c[2], c[3], k0, k1);
    next_philox_key(k0, k1);
  }
  return c;
}

// Uniform in (0, 1]: never 0, so that its logarithm is finite.
inline double uniform_open(std::uint32_t bits) { return (static_cast<double>(bits) + 1.0) * 0x1p-32; }

// A 64-bit key from a seed and a name (FNV-1a, then a finaliser so that near names give far keys).
inline std::uint64_t key_of(std::uint64_t seed, const char* text, std::size_t length) {
  std::uint64_t h = 14695981039346656037ull;
  for (std::size_t i = 0; i < length; ++i) h = (h ^ static_cast<unsigned char>(text[i])) * 1099511628211ull;
  h ^= seed * 0x9E3779B97F4A7C15ull;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
  return h ^ (h >> 31);
}

}  // namespace smoe
