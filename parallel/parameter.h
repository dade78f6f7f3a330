// The learned tensors, by their Hugging Face names. Each knows its global shape, the part of it that this rank holds,
// and which ranks hold the same part; nothing else in the house decides who reduces what with whom.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"

namespace smoe {

// The group whose ranks hold replicas of the same slice. Gradients are the SUM over it.
enum class Replicas : std::uint8_t {
  tensor_parallel,  // split over tp: replicas lie along dp
  everywhere,       // whole on every rank (norms, router): replicas are dp x tp
  expert,           // split over ep: replicas lie along edp
};
inline constexpr std::array all_replica_groups = {Replicas::tensor_parallel, Replicas::everywhere, Replicas::expert};
// The one rule of gradients: a parameter's gradient is the sum over the ranks of this axis.
constexpr Axis axis_of(Replicas replicas) {
  return replicas == Replicas::tensor_parallel ? Axis::dp : replicas == Replicas::expert ? Axis::edp : Axis::world;
}

// Where element i of a slice lies in the whole tensor: both row-major, [n] or [rows, columns], the slice's corner at first.
inline std::int64_t global_index(const Shape& shape, const Shape& slice, const std::array<std::int64_t, 2>& first, std::int64_t i) {
  const std::int64_t width = shape.rank() == 2 ? shape[1] : 1, slice_width = slice.rank() == 2 ? slice[1] : 1;
  return (first[0] + i / slice_width) * width + first[1] + i % slice_width;
}

struct Parameter {
  std::string name;                 // as released: model.layers.0.block_sparse_moe.experts.3.w1.weight
  Shape shape{};                    // of the whole tensor
  std::array<std::int64_t, 2> first{};  // where our slice begins in dims 0 and 1
  Shape slice{};                    // what we hold; shape itself where nothing is split
  Replicas replicas = Replicas::everywhere;
  float initial_mean = 0, initial_std = 0;  // N(mean, std^2); norm weights start at one, which is mean 1 and std 0
  bool decays = true;               // weight decay: every matrix, never a norm
  bool trainable = true;
  bool follows_previous = false;    // lies right behind the parameter before it, so that both are read as one matrix
  std::size_t index = 0;            // its place in the set
  std::int64_t place = 0;           // where its slice begins in the flat buffer of its group
  Tensor value{};                   // [slice]
  Tensor gradient{};                // [slice], empty when not training
};

// Parameters that lie one behind the other, read as one tensor: q|k|v rows, or [E, 2F, D] of all experts' w1|w3.
struct ParameterStack {
  const Parameter* first = nullptr;
  Shape shape;
  Tensor value() const { return first->value.from_here(shape); }
  Tensor gradient() const { return first->gradient.from_here(shape); }
};

// One flat buffer a replica group: what gets reduced, clipped and updated.
struct FlatBuffer {
  Replicas replicas;
  Tensor values;     // [n], n a multiple of 16 times the group's size, so that every rank of it can own an equal part
  Tensor gradients;  // [n], empty when not training
};

class ParameterSet {
 public:
  ParameterSet() = default;
  ParameterSet(const ParameterSet&) = delete;
  ParameterSet& operator=(const ParameterSet&) = delete;

  // The returned reference stays valid. The order of calls is the order of collectives. Throws on a repeated name.
  Parameter& add(Parameter parameter);
  // Gives every parameter its place in the flat buffers, values (and gradients) zeroed. Once, after the last add.
  void allocate(Backend& backend, Arena& arena, const Mesh& mesh, bool with_gradients);
  // N(0, std^2) from a counter-based generator keyed by (seed, name) at the element's global index: the same numbers
  // whatever slice a rank holds.
  void initialize(Backend& backend, std::uint64_t seed);

  auto begin() { return parameters_.begin(); }
  auto end() { return parameters_.end(); }
  auto begin() const { return parameters_.begin(); }
  auto end() const { return parameters_.end(); }
  std::size_t size() const { return parameters_.size(); }
  Parameter* find(std::string_view name);
  const std::vector<FlatBuffer>& flat_buffers() const { return flat_; }

 private:
  std::deque<Parameter> parameters_;  // they never move
  std::unordered_map<std::string_view, Parameter*> by_name_;
  std::vector<FlatBuffer> flat_;
};

// Values of the slice by global index, on the host, for initialisation and tests.
void fill_normal(std::uint64_t seed, const Parameter& parameter, float* slice_values);

}  // namespace smoe
