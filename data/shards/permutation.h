// A keyed random permutation of 0 .. n-1 that is computed one entry at a time, in constant memory.
#pragma once

#include <cstdint>

namespace smoe {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of `x`.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Where `x` in [0, n) goes: the swap-or-not shuffle (Hoang, Morris, Rogaway, "An Enciphering Scheme Based on a Card
// Shuffle", CRYPTO 2012). Each round pairs x with K - x mod n and a coin, thrown once a pair, tells whether the two
// change places. It takes any n as it is, so there is no walking of cycles, and small n are shuffled as well as large.
std::int64_t permute(std::int64_t x, std::int64_t n, std::uint64_t key);

}  // namespace smoe
