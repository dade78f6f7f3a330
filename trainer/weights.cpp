#include "trainer/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>

namespace smoe {
namespace {

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

// Where a parameter is found on disk: a tensor, or rows of a fused one.
struct Place {
  std::string tensor;
  std::vector<std::int64_t> shape;  // of that tensor
  std::int64_t first = 0;           // element at which the parameter begins
};

bool replace(std::string& name, std::string_view from, std::string_view to) {
  const auto at = name.find(from);
  if (at == std::string::npos) return false;
  name.replace(at, from.size(), to);
  return true;
}

// The place of a parameter among the fused names: w1's rows stand before w3's in gate_up_proj [E,2F,D].
std::optional<Place> fused_place(const Parameter& p, std::int64_t experts) {
  std::string name = p.name;
  if (replace(name, ".block_sparse_moe.gate.", ".mlp.gate.")) return Place{name, dims_of(p.shape), 0};
  constexpr std::string_view marker = ".block_sparse_moe.experts.";
  const auto at = name.find(marker);
  if (at == std::string::npos) return std::nullopt;
  const std::string prefix = name.substr(0, at) + ".mlp.experts.";
  std::size_t digits = 0;
  const std::int64_t expert = std::stoll(name.substr(at + marker.size()), &digits);
  const std::string matrix = name.substr(at + marker.size() + digits + 1, 2);
  const std::int64_t elements = p.shape.elements(), rows = p.shape[0], columns = p.shape[1];
  if (matrix == "w2") return Place{prefix + "down_proj", {experts, rows, columns}, expert * elements};
  return Place{prefix + "gate_up_proj", {experts, 2 * rows, columns}, (2 * expert + (matrix == "w3")) * elements};
}

std::string text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Calls move(first element on disk, first element in the slice, count) for each contiguous piece of a slice.
template <class Move>
void for_each_piece(const Parameter& p, Move&& move) {
  const std::int64_t width = p.shape.rank() == 2 ? p.shape[1] : 1, slice_width = p.slice.rank() == 2 ? p.slice[1] : 1;
  const std::int64_t rows = p.slice.elements() / slice_width;
  if (slice_width == width) {
    move(p.first[0] * width, 0, p.slice.elements());
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) move((p.first[0] + r) * width + p.first[1], r * slice_width, slice_width);
}

// A tensor's values where the host can reach them: in place on the CPU, through `staging` from a device.
class HostView {
 public:
  HostView(Backend& backend, const Tensor& tensor, std::vector<float>& staging) : backend_(backend), tensor_(tensor) {
    if (backend.device() == Device::cpu) {
      data_ = tensor.f32();
    } else {
      staging.resize(static_cast<std::size_t>(tensor.elements()));
      data_ = staging.data();
    }
  }
  float* data() const { return data_; }
  void fetch() const { if (data_ != tensor_.data()) backend_.copy_to_host(data_, tensor_); }
  void store() const { if (data_ != tensor_.data()) backend_.copy_from_host(tensor_, data_); }

 private:
  Backend& backend_;
  Tensor tensor_;
  float* data_;
};

std::int64_t count_experts(const ParameterSet& parameters) {
  std::int64_t experts = 0;
  for (const Parameter& p : parameters)
    if (p.name.find("model.layers.0.block_sparse_moe.gate.") == 0) experts = p.shape[0];
  return experts;
}

template <class Writer>
void write_all(Writer& writer, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of, const std::string& prefix) {
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    const HostView host(backend, tensor_of(p), staging);
    host.fetch();
    for_each_piece(p, [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
      writer.write_f32(prefix + p.name, on_disk, std::span<const float>(host.data() + here, static_cast<std::size_t>(count)));
    });
  }
}

}  // namespace

void load_weights(const std::filesystem::path& directory, Backend& backend, ParameterSet& parameters) {
  const TensorDirectory files(directory);
  const std::int64_t experts = count_experts(parameters);
  std::vector<std::string> problems;
  std::set<std::string> used;
  std::vector<Place> places;
  for (const Parameter& p : parameters) {
    Place place{p.name, dims_of(p.shape), 0};
    if (!files.contains(place.tensor))
      if (const auto fused = fused_place(p, experts); fused && files.contains(fused->tensor)) place = *fused;
    if (!files.contains(place.tensor)) {
      problems.push_back(fmt::format("{}: missing, expected {}", p.name, text(place.shape)));
    } else if (const auto& info = files.info(place.tensor); info.shape != place.shape && !used.contains(place.tensor)) {
      problems.push_back(fmt::format("{}: found {}, expected {}", place.tensor, text(info.shape), text(place.shape)));
    }
    used.insert(place.tensor);
    places.push_back(std::move(place));
  }
  for (const auto& name : files.names())
    if (!used.contains(name) && name.find("rotary_emb.inv_freq") == std::string::npos)
      problems.push_back(fmt::format("{}: found, but a model of this shape has no such tensor", name));
  if (!problems.empty()) {
    const std::size_t shown = std::min<std::size_t>(problems.size(), 20);
    std::string message = fmt::format("{}: the weights do not fit the model's shape (config.json):", directory.string());
    for (std::size_t i = 0; i < shown; ++i) message += "\n  " + problems[i];
    if (shown < problems.size()) message += fmt::format("\n  and {} more", problems.size() - shown);
    throw std::runtime_error(message);
  }

  std::vector<float> staging;
  std::size_t i = 0;
  for (const Parameter& p : parameters) {
    const Place& place = places[i++];
    const HostView host(backend, p.value, staging);
    for_each_piece(p, [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
      files.read_f32(place.tensor, host.data() + here, place.first + on_disk, count);
    });
    host.store();
  }
}

std::vector<TensorSpec> tensor_specs(const ParameterSet& parameters, const std::string& prefix) {
  std::vector<TensorSpec> specs;
  for (const Parameter& p : parameters) specs.push_back({prefix + p.name, TensorType::f32, dims_of(p.shape)});
  return specs;
}

void write_slices(TensorDirectoryWriter& writer, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                  const std::string& prefix) {
  write_all(writer, backend, parameters, tensor_of, prefix);
}

void write_slices(SafetensorsWriter& writer, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                  const std::string& prefix) {
  write_all(writer, backend, parameters, tensor_of, prefix);
}

void read_slices(const TensorDirectory& directory, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                 const std::string& prefix) {
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    const std::string name = prefix + p.name;
    if (!directory.contains(name) || directory.info(name).shape != dims_of(p.shape))
      throw std::runtime_error(fmt::format("{}: {}: expected a tensor of shape {}, found {}", directory.path().string(), name,
                                           text(dims_of(p.shape)), directory.contains(name) ? text(directory.info(name).shape) : "none"));
    const HostView host(backend, tensor_of(p), staging);
    for_each_piece(p, [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
      directory.read_f32(name, host.data() + here, on_disk, count);
    });
    host.store();
  }
}

}  // namespace smoe
