// The learned tensors, by their Hugging Face names. Each knows its global shape, the part of it that this rank holds,
// and which ranks hold the same part; nothing else in the house decides who reduces what with whom.
//
// They lie in flat buffers, which are what is reduced, clipped and updated. A frozen parameter has a value and nothing
// else: it lies in a buffer without gradients.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "parallel/mesh.h"
#include "parallel/split.h"

namespace smoe {

// Every stack, and every rank's part of a flat buffer, starts on a cache line. The CPU's sum of squares adds by blocks of
// a buffer, so another alignment would give the gradient norm other last bits.
constexpr std::int64_t flat_alignment(DType type) {
  return std::int64_t{64} / static_cast<std::int64_t>(bytes_of(type));
}  // elements

struct Parameter {
  std::string name;                     // as released: model.layers.0.block_sparse_moe.experts.3.w1.weight
  Shape shape{};                        // of the whole tensor
  std::array<std::int64_t, 2> first{};  // where our slice begins in dims 0 and 1
  Shape slice{};                        // what we hold; shape itself where nothing is split
  Split split = Split::none;
  DType type = DType::f32;                  // of the value; gradients are f32
  float initial_mean = 0, initial_std = 0;  // N(mean, std^2); norm weights start at one, which is mean 1 and std 0
  float initial_range = 0;                  // not 0: uniform in [-range, range) in place of that
  bool decays = true;                       // weight decay: every matrix, never a norm
  double learning_rate_scale = 1;           // of the optimizer's rate
  bool trainable = true;  // false: frozen, which is settled before the set is laid out (model/freeze.h)
  bool adapter = false;   // of low rank, beside a weight (model/low_rank.h): not among a model's released tensors
  bool follows_previous = false;  // lies right behind the parameter before it, so that both are read as one matrix
  std::size_t index = 0;          // its place in the set
  std::size_t flat = 0;           // which flat buffer it lies in, and where its slice begins there
  std::int64_t place = 0;
  Tensor value{};     // [slice]
  Tensor gradient{};  // [slice], empty when frozen or not training
};

// Is handed a parameter's slice in f32, on the host, before it is stored: rounded, where the parameter is bf16.
using ShowNumbers = std::function<void(const Parameter&, std::span<float> slice)>;

// Parameters that lie one behind the other, read as one tensor: q|k|v rows, or [E, 2F, D] of all experts' w1|w3.
struct ParameterStack {
  const Parameter* first = nullptr;
  Shape shape;
  Tensor value() const { return from(first->value); }
  Tensor gradient() const { return first->gradient.empty() ? Tensor{} : from(first->gradient); }

 private:
  Tensor from(const Tensor& start) const { return start.from_here(shape); }
};

// The parameters that are alike in what they are split over, in type and in being trained.
struct FlatBuffer {
  Split split = Split::none;
  DType type = DType::f32;
  bool trainable = true;
  std::int64_t elements =
      0;               // a multiple of the alignment times the group's size: every rank of it can own an equal part
  Tensor values{};     // [elements]
  Tensor gradients{};  // [elements] f32, empty when frozen or not training

  bool holds(const Parameter& p) const { return p.split == split && p.type == type && p.trainable == trainable; }
};

class ParameterSet {
 public:
  ParameterSet() = default;
  ParameterSet(ParameterSet&&) = default;  // references to its parameters stay valid
  ParameterSet& operator=(ParameterSet&&) = delete;

  // The returned reference stays valid. The order of calls is the order of collectives. Throws on a repeated name.
  Parameter& add(Parameter parameter);
  // Gives every parameter its place in the flat buffers, which have no memory yet. Once, after the last add.
  void lay_out(const Mesh& mesh);
  // lay_out(), and memory: values (and gradients of what is trained) zeroed.
  void allocate(Backend& backend, Arena& arena, const Mesh& mesh, bool with_gradients);
  // What allocate() takes, of a set that is laid out.
  std::uint64_t bytes(bool with_gradients) const;
  // Every parameter's initial values (parallel/initial_values.h), or those of the adapters alone. also: is shown each one's in
  // f32 (Shards::store_masters).
  void initialize(Backend& backend, std::uint64_t seed, const ShowNumbers& also = {}, bool adapters_alone = false);

  auto begin() { return parameters_.begin(); }
  auto end() { return parameters_.end(); }
  auto begin() const { return parameters_.begin(); }
  auto end() const { return parameters_.end(); }
  std::size_t size() const { return parameters_.size(); }
  Parameter* find(std::string_view name);
  const std::vector<FlatBuffer>& flat_buffers() const { return flat_; }
  const FlatBuffer& flat_of(const Parameter& parameter) const { return flat_[parameter.flat]; }

 private:
  std::deque<Parameter> parameters_;  // they never move
  std::unordered_map<std::string_view, Parameter*> by_name_;
  std::vector<FlatBuffer> flat_;
};

}  // namespace smoe
