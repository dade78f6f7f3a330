#include "parallel/parameter.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/host_view.h"
#include "parallel/normals.h"
#include "parallel/philox.h"

namespace smoe {
namespace {
constexpr std::int64_t alignment = 16;  // floats: every stack starts on a cache line

std::int64_t aligned(std::int64_t n, std::int64_t unit = alignment) { return (n + unit - 1) / unit * unit; }
Tensor part(const Tensor& flat, std::int64_t first, const Shape& shape) {
  Tensor rows = flat.rows(first, shape.elements());
  return rows.reshape(shape);
}
}  // namespace

Parameter& ParameterSet::add(Parameter parameter) {
  if (!flat_.empty()) throw std::logic_error("parameters are added before allocate()");
  if (find(parameter.name)) throw std::logic_error("two parameters are called " + parameter.name);
  if (parameter.slice.rank() == 0) parameter.slice = parameter.shape;
  if (parameter.follows_previous && (parameters_.empty() || parameters_.back().replicas != parameter.replicas))
    throw std::logic_error(parameter.name + " cannot follow a parameter of another replica group");
  parameter.index = parameters_.size();
  Parameter& added = parameters_.emplace_back(std::move(parameter));
  by_name_.emplace(added.name, &added);
  return added;
}

void ParameterSet::allocate(Backend& backend, Arena& arena, const Mesh& mesh, bool with_gradients) {
  if (!flat_.empty()) throw std::logic_error("allocate() runs once");
  for (Replicas group : all_replica_groups) {
    std::int64_t total = 0;
    for (auto& p : parameters_) {
      if (p.replicas != group) continue;
      if (!p.follows_previous) total = aligned(total);
      p.place = total;
      total += p.slice.elements();
    }
    if (total == 0) continue;
    const Shape whole{aligned(total, alignment * mesh.size(axis_of(group)))};
    FlatBuffer flat{group, arena.take(whole), {}};
    backend.fill(flat.values, 0.0f);
    if (with_gradients) {
      flat.gradients = arena.take(whole);
      backend.fill(flat.gradients, 0.0f);
    }
    for (auto& p : parameters_) {
      if (p.replicas != group) continue;
      p.value = part(flat.values, p.place, p.slice);
      if (with_gradients) p.gradient = part(flat.gradients, p.place, p.slice);
    }
    flat_.push_back(flat);
  }
}

void fill_normal(std::uint64_t seed, const Parameter& p, float* out) {
  const std::int64_t row = p.shape.rank() == 2 ? p.shape[1] : 1;
  const std::int64_t width = p.slice.rank() == 2 ? p.slice[1] : 1;
  const std::int64_t elements = p.slice.elements();
  if (p.initial_std == 0) {
    std::fill_n(out, elements, p.initial_mean);
    return;
  }
  const std::uint64_t key = key_of(seed, p.name.data(), p.name.size());
  // Rows that are whole follow each other in the stream: they are cut as suits the threads.
  const bool whole_rows = width == row;
  const std::int64_t piece = whole_rows ? 16384 : width, pieces = (elements + piece - 1) / piece;
  const std::int64_t step = whole_rows ? piece : row, start = p.first[0] * row + p.first[1];
#pragma omp parallel for schedule(static) if (elements > 65536)
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::int64_t count = std::min(piece, elements - i * piece);
    float* to = out + i * piece;
    standard_normals(key, start + i * step, count, to);
    for (std::int64_t c = 0; c < count; ++c) to[c] = p.initial_mean + p.initial_std * to[c];
  }
}

void ParameterSet::initialize(Backend& backend, std::uint64_t seed) {
  std::vector<float> staging;
  for (auto& p : parameters_) {
    const HostView host(backend, p.value, staging);
    fill_normal(seed, p, host.numbers().data());
    host.store();
  }
}

Parameter* ParameterSet::find(std::string_view name) {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

}  // namespace smoe
