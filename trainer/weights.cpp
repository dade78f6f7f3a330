#include "trainer/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>

#include "model/mixtral.h"

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
std::optional<Place> fused_place(std::string name, const std::vector<std::int64_t>& shape, std::int64_t experts) {
  if (replace(name, ".block_sparse_moe.gate.", ".mlp.gate.")) return Place{name, shape, 0};
  constexpr std::string_view marker = ".block_sparse_moe.experts.";
  const auto at = name.find(marker);
  if (at == std::string::npos) return std::nullopt;
  const std::string prefix = name.substr(0, at) + ".mlp.experts.";
  std::size_t digits = 0;
  const std::int64_t expert = std::stoll(name.substr(at + marker.size()), &digits);
  const std::string matrix = name.substr(at + marker.size() + digits + 1, 2);
  const std::int64_t rows = shape[0], columns = shape[1], elements = rows * columns;
  if (matrix == "w2") return Place{prefix + "down_proj", {experts, rows, columns}, expert * elements};
  return Place{prefix + "gate_up_proj", {experts, 2 * rows, columns}, (2 * expert + (matrix == "w3")) * elements};
}

std::string text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Calls move(first element on disk, first of the part, count) for each contiguous piece of elements [first, first + count)
// of a parameter's slice.
template <class Move>
void for_each_piece(const Parameter& p, std::int64_t first, std::int64_t count, Move&& move) {
  const bool whole_rows = p.slice.rank() != 2 || p.slice[1] == p.shape[1];
  const std::int64_t row = whole_rows ? p.slice.elements() : p.slice[1];  // what lies together on disk
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t n = std::min(row - (first + done) % row, count - done);
    move(global_index(p.shape, p.slice, p.first, first + done), done, n);
    done += n;
  }
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

template <class Writer>
std::int64_t write_all(Writer& writer, Backend& backend, const ParameterSet& parameters, const PartsOf& parts_of, const std::string& prefix) {
  std::vector<float> staging;
  std::int64_t elements = 0;
  for (const Parameter& p : parameters)
    for (const SlicePart& part : parts_of(p)) {
      const HostView host(backend, part.numbers, staging);
      host.fetch();
      for_each_piece(p, part.first, part.numbers.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
        writer.write_f32(prefix + p.name, on_disk, std::span<const float>(host.data() + here, static_cast<std::size_t>(count)));
        elements += count;
      });
    }
  return elements;
}

std::vector<std::int64_t> dims_in(const TensorDirectory& directory, const std::string& name) {
  return directory.contains(name) ? directory.info(name).shape : std::vector<std::int64_t>{};
}

}  // namespace

void load_weights(const std::filesystem::path& directory, Backend& backend, const ModelConfig& model, ParameterSet& parameters) {
  const TensorDirectory files(directory);
  const auto place_of = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    if (!files.contains(name))
      if (auto fused = fused_place(name, shape, model.num_local_experts); fused && files.contains(fused->tensor)) return *fused;
    return Place{name, shape, 0};
  };
  std::vector<std::string> problems;
  std::set<std::string> used;
  for (const TensorSpec& p : tensor_specs(model, backend)) {
    const Place place = place_of(p.name, p.shape);
    if (!files.contains(place.tensor)) {
      problems.push_back(fmt::format("{}: missing, expected {}", p.name, text(place.shape)));
    } else if (const auto& info = files.info(place.tensor); info.shape != place.shape && !used.contains(place.tensor)) {
      problems.push_back(fmt::format("{}: found {}, expected {}", place.tensor, text(info.shape), text(place.shape)));
    }
    used.insert(place.tensor);
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
  for (const Parameter& p : parameters) {
    const Place place = place_of(p.name, dims_of(p.shape));
    const HostView host(backend, p.value, staging);
    for_each_piece(p, 0, p.slice.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
      files.read_f32(place.tensor, host.data() + here, place.first + on_disk, count);
    });
    host.store();
  }
}

PartsOf owned_parts(const ParameterSet& parameters, const Shards& shards, Tensor FlatBuffer::*which) {
  return [&parameters, &shards, which](const Parameter& p) {
    std::vector<SlicePart> parts;
    const Tensor& flat = parameters.flat_buffers()[shards.flat_of(p)].*which;
    shards.for_each_owned(p, [&](std::int64_t first, std::int64_t count, std::int64_t) { parts.push_back({first, flat.rows(p.place + first, count)}); });
    return parts;
  };
}

PartsOf shard_parts(const Shards& shards, std::function<Tensor(std::size_t)> shard_of) {
  return [&shards, shard_of = std::move(shard_of)](const Parameter& p) {
    std::vector<SlicePart> parts;
    const Tensor shard = shard_of(shards.flat_of(p));
    shards.for_each_owned(p, [&](std::int64_t first, std::int64_t count, std::int64_t at) { parts.push_back({first, shard.rows(at, count)}); });
    return parts;
  };
}

std::vector<TensorSpec> tensor_specs(const ModelConfig& model, Backend& backend, const std::vector<std::string>& prefixes) {
  const Mesh whole = Mesh::single();
  const Mixtral declared(model, backend, whole);  // without memory
  std::vector<TensorSpec> specs;
  for (const std::string& prefix : prefixes)
    for (const Parameter& p : declared.parameters()) specs.push_back({prefix + p.name, TensorType::f32, dims_of(p.shape)});
  return specs;
}

std::int64_t write_parts(TensorDirectoryWriter& writer, Backend& backend, const ParameterSet& parameters, const PartsOf& parts_of,
                         const std::string& prefix) {
  return write_all(writer, backend, parameters, parts_of, prefix);
}

std::int64_t write_parts(SafetensorsWriter& writer, Backend& backend, const ParameterSet& parameters, const PartsOf& parts_of,
                         const std::string& prefix) {
  return write_all(writer, backend, parameters, parts_of, prefix);
}

void read_parts(const TensorDirectory& directory, Backend& backend, const ParameterSet& parameters, const PartsOf& parts_of,
                const std::string& prefix) {
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    const std::string name = prefix + p.name;
    if (const auto found = dims_in(directory, name); !directory.contains(name) || found != dims_of(p.shape))
      throw std::runtime_error(fmt::format("{}: {}: expected a tensor of shape {}, found {}", directory.path().string(), name,
                                           text(dims_of(p.shape)), directory.contains(name) ? text(found) : "none"));
    for (const SlicePart& part : parts_of(p)) {
      const HostView host(backend, part.numbers, staging);
      for_each_piece(p, part.first, part.numbers.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
        directory.read_f32(name, host.data() + here, on_disk, count);
      });
      host.store();
    }
  }
}

}  // namespace smoe
