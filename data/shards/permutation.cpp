#include "data/shards/permutation.h"

#include <algorithm>

namespace smoe {
namespace {

// The paper's bound on the distance from a random permutation, with half of the entries seen, shrinks by 3/4 every two
// rounds: by 1e8 in all. An entry takes about two microseconds, little beside reading the sample it points to.
constexpr int rounds = 128;

}  // namespace

std::int64_t permute(std::int64_t x, std::int64_t n, std::uint64_t key) {
  const auto size = static_cast<std::uint64_t>(n);
  const std::uint64_t base = mix64(key);  // so that neighbouring keys share no round keys
  auto at = static_cast<std::uint64_t>(x);
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t round_key = mix64(base + static_cast<std::uint64_t>(round));
    // K uniform in [0, n): the upper half of a 64 x 64 bit product.
    const auto k = static_cast<std::uint64_t>((static_cast<unsigned __int128>(round_key) * size) >> 64);
    const std::uint64_t partner = k >= at ? k - at : k + size - at;
    const std::uint64_t coin = mix64(mix64(round_key) ^ std::max(at, partner));
    if (coin & 1) at = partner;
  }
  return static_cast<std::int64_t>(at);
}

}  // namespace smoe
