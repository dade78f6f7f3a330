#include "parallel/initial_values.h"

#include <algorithm>

#include "parallel/normals.h"
#include "kernels/philox.h"
#include "parallel/split.h"

namespace smoe {
namespace {

// Element i of the whole tensor is word i % 4 of philox's counter i / 4.
void fill_uniform(std::uint64_t seed, const Parameter& p, float* out) {
  const std::int64_t elements = p.slice.elements();
  const std::uint64_t key = key_of(seed, p.name.data(), p.name.size());
#pragma omp parallel for schedule(static) if (elements > 65536)
  for (std::int64_t i = 0; i < elements; ++i) {
    const auto at = static_cast<std::uint64_t>(global_index(p.shape, p.slice, p.first, i));
    const float u = static_cast<float>(static_cast<std::int32_t>(philox(key, at / 4)[at % 4] >> 8)) * 0x1p-23f - 1.0f;
    out[i] = p.initial_range * u;
  }
}

}  // namespace

void fill_initial_values(std::uint64_t seed, const Parameter& p, float* out) {
  const std::int64_t elements = p.slice.elements();
  if (p.initial_range > 0) return fill_uniform(seed, p, out);
  if (p.initial_std == 0) {
    std::fill_n(out, elements, p.initial_mean);
    return;
  }
  const std::uint64_t key = key_of(seed, p.name.data(), p.name.size());
  // What is contiguous as a whole is cut as suits the threads.
  const std::int64_t together = contiguous_elements(p.shape, p.slice), piece = together == elements ? 16384 : together;
  const std::int64_t pieces = (elements + piece - 1) / piece;
#pragma omp parallel for schedule(static) if (elements > 65536)
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::int64_t first = i * piece, count = std::min(piece, elements - first);
    float* to = out + first;
    standard_normals(key, global_index(p.shape, p.slice, p.first, first), count, to);
    for (std::int64_t c = 0; c < count; ++c) to[c] = p.initial_mean + p.initial_std * to[c];
  }
}

}  // namespace smoe
