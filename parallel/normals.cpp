#include "parallel/normals.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/philox.h"

namespace smoe {
namespace {

constexpr int lanes = 32;  // Philox blocks computed side by side
constexpr std::int64_t batch_numbers = 4 * lanes;

struct Bits {
  std::uint32_t word[4][lanes];
};

// philox() of kernels/philox.h for the counters first_block .. first_block + lanes - 1.
void philox_blocks(std::uint64_t key, std::uint64_t first_block, Bits& bits) {
  auto& c = bits.word;
#pragma omp simd
  for (int i = 0; i < lanes; ++i) {
    const std::uint64_t counter = first_block + static_cast<std::uint64_t>(i);
    c[0][i] = static_cast<std::uint32_t>(counter);
    c[1][i] = static_cast<std::uint32_t>(counter >> 32);
    c[2][i] = c[3][i] = 0;
  }
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int i = 0; i < lanes; ++i) philox_round(c[0][i], c[1][i], c[2][i], c[3][i], k0, k1);
    next_philox_key(k0, k1);
  }
}

// bits as a float, by signed conversions, of which every CPU has a vector form.
[[gnu::always_inline]] inline float float_of(std::uint32_t bits) {
  return static_cast<float>(static_cast<std::int32_t>(bits >> 8)) * 0x1p8f +
         static_cast<float>(static_cast<std::int32_t>(bits & 0xffu));
}

// log of (bits + 1) / 2^32, by the polynomial of Cephes' logf on [sqrt(1/2), sqrt(2)). Near 1 the distance to 1 is taken
// from the bits, not from a rounded number: small radii are as exact as large ones.
[[gnu::always_inline]] inline float log_of_uniform(std::uint32_t bits) {
  const float x = (float_of(bits) + 1.0f) * 0x1p-32f;
  const std::uint32_t offset = std::bit_cast<std::uint32_t>(x) - 0x3f3504f3u;  // sqrt(1/2)
  const float e = static_cast<float>(static_cast<std::int32_t>(offset) >> 23);
  const float rounded = std::bit_cast<float>((offset & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float m = e == 0.0f ? float_of(~bits) * -0x1p-32f : rounded;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float square = m * m;
  return (m + (p * m * square - 0.5f * square + e * -2.12194440e-4f)) + e * 0.693359375f;
}

// From 32 bits a radius, from 24 an angle: a turn is cut into quarters about 0, 1/4, 1/2, 3/4, exactly.
[[gnu::always_inline]] inline void box_muller(std::uint32_t for_radius, std::uint32_t for_angle, float& x, float& y) {
  const float radius = std::sqrt(-2.0f * log_of_uniform(for_radius));
  const std::uint32_t turn = for_angle >> 8;               // in 2^-24 turns
  const std::uint32_t quarter = (turn + 0x200000u) >> 22;  // nearest, 0 .. 4
  const float t =
      static_cast<float>(static_cast<std::int32_t>(turn - (quarter << 22))) * (0x1p-24f * 6.283185307179586f);
  const float z = t * t;
  const float sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * t + t;
  const float cosine =
      ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
  const bool swapped = quarter & 1u;
  const float across = swapped ? sine : cosine, up = swapped ? cosine : sine;
  x = radius * ((quarter + 1u) & 2u ? -across : across);
  y = radius * (quarter & 2u ? -up : up);
}

// The numbers of `lanes` blocks, in order.
void normals_of_blocks(std::uint64_t key, std::uint64_t first_block, float* out) {
  Bits bits;
  philox_blocks(key, first_block, bits);
  float numbers[4][lanes];
  for (int pair = 0; pair < 4; pair += 2)
#pragma omp simd
    for (int i = 0; i < lanes; ++i)
      box_muller(bits.word[pair][i], bits.word[pair + 1][i], numbers[pair][i], numbers[pair + 1][i]);
  for (int i = 0; i < lanes; ++i)
    for (int j = 0; j < 4; ++j) out[4 * i + j] = numbers[j][i];
}

}  // namespace

void standard_normals(std::uint64_t key, std::int64_t first, std::int64_t count, float* out) {
  float batch[batch_numbers];
  for (std::int64_t begin = first / 4 * 4, end = first + count; begin < end; begin += batch_numbers) {
    normals_of_blocks(key, static_cast<std::uint64_t>(begin / 4), batch);
    const std::int64_t from = std::max(begin, first), to = std::min(begin + batch_numbers, end);
    std::copy(batch + (from - begin), batch + (to - begin), out + (from - first));
  }
}

}  // namespace smoe
