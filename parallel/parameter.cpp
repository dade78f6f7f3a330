#include "parallel/parameter.h"

#include <stdexcept>
#include <utility>

#include "kernels/host_view.h"
#include "parallel/initial_values.h"

namespace smoe {
namespace {

std::int64_t aligned(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

Tensor part(const Tensor& flat, const Parameter& p) {
  return flat.empty() ? Tensor{} : flat.rows(p.place, p.slice.elements()).reshape(p.slice);
}

}  // namespace

Parameter& ParameterSet::add(Parameter parameter) {
  if (!flat_.empty()) throw std::logic_error("parameters are added before they are laid out");
  if (find(parameter.name)) throw std::logic_error("two parameters are called " + parameter.name);
  if (parameter.slice.rank() == 0) parameter.slice = parameter.shape;
  if (parameter.follows_previous && parameters_.empty())
    throw std::logic_error(parameter.name + " has no parameter before it to follow");
  parameter.index = parameters_.size();
  Parameter& added = parameters_.emplace_back(std::move(parameter));
  by_name_.emplace(added.name, &added);
  return added;
}

void ParameterSet::lay_out(const Mesh& mesh) {
  if (!flat_.empty()) throw std::logic_error("parameters are laid out once");
  for (const Split split : all_splits)
    for (const DType type : {DType::f32, DType::bf16})
      for (const bool trainable : {true, false}) {
        FlatBuffer flat{.split = split, .type = type, .trainable = trainable};
        const std::int64_t alignment = flat_alignment(type);
        for (Parameter& p : parameters_) {
          if (!flat.holds(p)) continue;
          if (p.follows_previous && !flat.holds(parameters_[p.index - 1]))
            throw std::logic_error(p.name + " and " + parameters_[p.index - 1].name +
                                   " are read as one matrix: they cannot differ in split, type or training");
          p.flat = flat_.size();
          p.place = p.follows_previous ? flat.elements : aligned(flat.elements, alignment);
          flat.elements = p.place + p.slice.elements();
        }
        if (flat.elements == 0) continue;
        flat.elements = aligned(flat.elements, alignment * mesh.size(replica_axis(split)));
        flat_.push_back(flat);
      }
}

void ParameterSet::allocate(Backend& backend, Arena& arena, const Mesh& mesh, bool with_gradients) {
  lay_out(mesh);
  for (FlatBuffer& flat : flat_) {
    flat.values = arena.take(flat.type, {flat.elements});
    backend.fill(flat.values, 0.0f);
    if (!with_gradients || !flat.trainable) continue;
    flat.gradients = arena.take({flat.elements});
    backend.fill(flat.gradients, 0.0f);
  }
  for (Parameter& p : parameters_) {
    p.value = part(flat_of(p).values, p);
    p.gradient = part(flat_of(p).gradients, p);
  }
}

std::uint64_t ParameterSet::bytes(bool with_gradients) const {
  std::size_t bytes = 0;
  for (const FlatBuffer& flat : flat_)
    bytes += static_cast<std::size_t>(flat.elements) *
             (bytes_of(flat.type) + (with_gradients && flat.trainable ? bytes_of(DType::f32) : 0));
  return bytes;
}

void ParameterSet::initialize(Backend& backend, std::uint64_t seed, const ShowNumbers& also, bool adapters_alone) {
  std::vector<float> staging;
  for (auto& p : parameters_) {
    if (adapters_alone && !p.adapter) continue;
    const HostView host(backend, p.value, staging);
    fill_initial_values(seed, p, host.numbers().data());
    if (also) also(p, host.numbers());
    host.store();
  }
}

Parameter* ParameterSet::find(std::string_view name) {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

}  // namespace smoe
