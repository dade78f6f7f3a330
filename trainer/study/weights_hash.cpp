#include "trainer/study/weights_hash.h"

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "data/files/sha256.h"
#include "kernels/bf16.h"
#include "parallel/split.h"

namespace smoe {
namespace {

// A finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over both, so that values that change places tell.
std::uint64_t mixed(std::uint64_t place, std::uint32_t bits) {
  std::uint64_t h = (place + 1) * 0x9E3779B97F4A7C15ull ^ bits * 0xD1B54A32D192ED03ull;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
  return h ^ (h >> 31);
}

template <class Number>
std::uint64_t sum_of_slice(Backend& backend, const Parameter& p) {
  std::vector<Number> values(static_cast<std::size_t>(p.value.elements()));
  backend.copy_to_host(values.data(), p.value);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    float value;
    if constexpr (sizeof(Number) == 2)
      value = widened(values[i]);
    else
      value = values[i];
    sum += mixed(static_cast<std::uint64_t>(global_index(p.shape, p.slice, p.first, static_cast<std::int64_t>(i))),
                 std::bit_cast<std::uint32_t>(value));
  }
  return sum;
}

}  // namespace

std::string hash_of_weights(Backend& backend, const ParameterSet& whole, const ParameterSet& own, const Mesh& mesh) {
  constexpr std::size_t parts = 4;  // of 16 bits, which doubles add without rounding
  std::map<std::string_view, std::size_t> place;
  for (const Parameter& p : whole) place.emplace(p.name, p.index);
  std::vector<double> sums(parts * whole.size());
  for (const Parameter& p : own) {
    if (mesh.rank(replica_axis(p.split)) != 0) continue;  // another rank adds the same slice
    const std::uint64_t sum = p.type == DType::bf16 ? sum_of_slice<Bf16>(backend, p) : sum_of_slice<float>(backend, p);
    for (std::size_t part = 0; part < parts; ++part)
      sums[parts * place.at(p.name) + part] = static_cast<double>(sum >> (16 * part) & 0xffff);
  }
  mesh.group(Axis::world).all_reduce(std::span(sums), Reduce::sum, "study.weights");
  Sha256 hash;
  for (const Parameter& p : whole) {
    std::uint64_t sum = 0;
    for (std::size_t part = 0; part < parts; ++part)
      sum += static_cast<std::uint64_t>(sums[parts * p.index + part]) << (16 * part);
    std::string shape;
    for (int dim = 0; dim < p.shape.rank(); ++dim) shape += fmt::format("{} ", p.shape[dim]);
    hash.update(fmt::format("{} {}{:016x}\n", p.name, shape, sum));
  }
  return hash.hex();
}

}  // namespace smoe
