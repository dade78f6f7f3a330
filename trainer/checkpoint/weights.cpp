#include "trainer/checkpoint/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/host_view.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "parallel/split.h"

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

// Every place that a parameter may have, the released name first.
std::vector<Place> places_of(const std::string& name, const std::vector<std::int64_t>& shape, std::int64_t experts,
                             bool tied_head) {
  std::vector<Place> places{{name, shape, 0}};
  if (tied_head && name == "lm_head.weight") places.push_back({"model.embed_tokens.weight", shape, 0});
  if (tied_head && name == "model.embed_tokens.weight") places.push_back({"lm_head.weight", shape, 0});
  constexpr std::string_view block = ".block_sparse_moe.";
  const auto at = name.find(block);
  if (at == std::string::npos) return places;
  const std::string layer = name.substr(0, at),
                    rest = name.substr(at + block.size());  // "gate.weight", "experts.3.w1.weight"
  if (!rest.starts_with("experts.")) {
    places.push_back({layer + ".mlp." + rest, shape, 0});
    return places;
  }
  std::size_t digits = 0;
  const std::int64_t expert = std::stoll(rest.substr(8), &digits);
  const std::string matrix = rest.substr(8 + digits + 1, 2);
  const char* spelled_out = matrix == "w1" ? "gate_proj" : matrix == "w2" ? "down_proj" : "up_proj";
  const std::int64_t rows = shape[0], columns = shape[1], elements = rows * columns;
  for (const char* parent : {".block_sparse_moe.experts.", ".mlp.experts."}) {
    const std::string prefix = layer + parent;
    for (const char* weight : {matrix.c_str(), spelled_out})
      places.push_back({fmt::format("{}{}.{}.weight", prefix, expert, weight), shape, 0});
    // Fused: w1's rows stand before w3's in gate_up_proj [E,2F,D].
    if (matrix == "w2")
      places.push_back({prefix + "down_proj", {experts, rows, columns}, expert * elements});
    else
      places.push_back(
          {prefix + "gate_up_proj", {experts, 2 * rows, columns}, (2 * expert + (matrix == "w3")) * elements});
  }
  return places;
}

std::string text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// The place that the directory has; the released name where it has none.
Place place_in(const TensorDirectory& files, const ModelConfig& model, const std::string& name,
               const std::vector<std::int64_t>& shape, bool tied_head = false) {
  const auto places = places_of(name, shape, model.num_local_experts, tied_head);
  const auto found =
      std::find_if(places.begin(), places.end(), [&](const Place& place) { return files.contains(place.tensor); });
  return found == places.end() ? places.front() : *found;
}

// Those of the directory's selection bias: none, or one a layer.
std::vector<TensorSpec> selection_bias_in(const TensorDirectory& files, const ModelConfig& model) {
  const std::vector<TensorSpec> specs = selection_bias_specs(model);
  const bool any = std::any_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) {
    return files.contains(place_in(files, model, spec.name, spec.shape).tensor);
  });
  return any ? specs : std::vector<TensorSpec>();
}

// Calls move(first element on disk, first of the part, count) for each contiguous piece of elements [first, first + count)
// of a parameter's slice.
template <class Move>
void for_each_piece(const Parameter& p, std::int64_t first, std::int64_t count, Move&& move) {
  const std::int64_t together = contiguous_elements(p.shape, p.slice);
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t n = std::min(together - (first + done) % together, count - done);
    move(global_index(p.shape, p.slice, p.first, first + done), done, n);
    done += n;
  }
}

// The parts in which this rank owns a parameter. numbers_of(parameter, run): where a run's numbers lie, empty where there are none.
template <class NumbersOf>
PartsOf parts_of_runs(const Shards& shards, NumbersOf numbers_of) {
  return [&shards, numbers_of](const Parameter& p) {
    std::vector<SlicePart> parts;
    shards.for_each_owned(p, [&](std::int64_t first, const OwnedRun& run) {
      if (const Tensor numbers = numbers_of(p, run); !numbers.empty()) parts.push_back({first, numbers});
    });
    return parts;
  };
}

// A parameter's value, whose whole tensor begins at element `begin` of one on disk.
void read_value(const TensorDirectory& files, const std::string& tensor, std::int64_t begin, Backend& backend,
                const Parameter& p, std::vector<float>& staging, const ShowNumbers& also) {
  const HostView host(backend, p.value, staging);
  for_each_piece(p, 0, p.slice.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
    files.read_f32(tensor, host.numbers().data() + here, begin + on_disk, count);
  });
  if (also) also(p, host.numbers());
  host.store();
}

void require_shape(const TensorDirectory& directory, const std::string& name, const Parameter& p) {
  if (const auto& found = directory.info(name).shape; found != dims_of(p.shape))
    throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", directory.file_of(name), name, text(found),
                                         text(dims_of(p.shape))));
}

template <class Writer>
std::int64_t write_all(Writer& writer, Backend& backend, const ParameterSet& parameters, const PartsOf& parts_of,
                       const std::string& prefix) {
  std::vector<float> staging;
  std::int64_t elements = 0;
  for (const Parameter& p : parameters)
    for (const SlicePart& part : parts_of(p)) {
      const HostView host(backend, part.numbers, staging);
      host.fetch();
      for_each_piece(
          p, part.first, part.numbers.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
            writer.write_f32(prefix + p.name, on_disk,
                             host.numbers().subspan(static_cast<std::size_t>(here), static_cast<std::size_t>(count)));
            elements += count;
          });
    }
  return elements;
}

}  // namespace

void load_weights(const std::filesystem::path& directory, Backend& backend, const ModelConfig& model,
                  ParameterSet& parameters, bool tied_head, const ShowNumbers& also) {
  const TensorDirectory files(directory);
  const auto place_of = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    return place_in(files, model, name, shape, tied_head);
  };
  // The directory stands before the list.
  const auto file_and_name = [&](const std::string& name) {
    return fmt::format("{}: {}", std::filesystem::path(files.file_of(name)).filename().string(), name);
  };
  std::vector<std::string> problems;
  std::set<std::string> used;
  std::vector<TensorSpec> wanted = tensor_specs(declare_parameters(model, Mesh::single()));
  for (TensorSpec& bias : selection_bias_in(files, model)) wanted.push_back(std::move(bias));
  for (const TensorSpec& p : wanted) {
    const Place place = place_of(p.name, p.shape);
    if (!used.insert(place.tensor).second) continue;
    if (!files.contains(place.tensor)) {
      problems.push_back(fmt::format("{}: missing, expected {}", p.name, text(place.shape)));
      continue;
    }
    const TensorInfo& info = files.info(place.tensor);
    if (info.shape != place.shape)
      problems.push_back(
          fmt::format("{}: found {}, expected {}", file_and_name(place.tensor), text(info.shape), text(place.shape)));
    else if (!reads_as_f32(info.type))
      problems.push_back(
          fmt::format("{}: found {}, expected F32, F64, BF16 or F16", file_and_name(place.tensor), name_of(info.type)));
  }
  for (const auto& name : files.names())
    if (!used.contains(name) && !is_computed_buffer(name))
      problems.push_back(fmt::format("{}: found, but a model of this shape has no such tensor", file_and_name(name)));
  if (!problems.empty()) {
    const std::size_t shown = std::min<std::size_t>(problems.size(), 20);
    std::string message =
        fmt::format("{}: the weights do not fit the model's shape (config.json):", directory.string());
    for (std::size_t i = 0; i < shown; ++i) message += "\n  " + problems[i];
    if (shown < problems.size()) message += fmt::format("\n  and {} more", problems.size() - shown);
    throw std::runtime_error(message);
  }

  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    if (p.adapter) continue;
    const Place place = place_of(p.name, dims_of(p.shape));
    read_value(files, place.tensor, place.first, backend, p, staging, also);
  }
}

std::string selection_bias_name(std::int64_t layer) {
  return fmt::format("model.layers.{}.block_sparse_moe.gate.e_score_correction_bias", layer);
}

std::vector<TensorSpec> selection_bias_specs(const ModelConfig& model) {
  std::vector<TensorSpec> specs;
  for (std::int64_t l = 0; l < model.num_hidden_layers; ++l)
    specs.push_back({selection_bias_name(l), TensorType::f32, {model.num_local_experts}});
  return specs;
}

std::vector<float> load_selection_bias(const std::filesystem::path& directory, const ModelConfig& model) {
  const TensorDirectory files(directory);
  std::vector<float> biases;
  for (const TensorSpec& spec : selection_bias_in(files, model)) {
    const std::string tensor = place_in(files, model, spec.name, spec.shape).tensor;
    std::vector<float> layer(static_cast<std::size_t>(model.num_local_experts));
    files.read_f32(tensor, layer.data(), 0, model.num_local_experts);
    for (std::size_t i = 0; i < layer.size(); ++i)
      if (!std::isfinite(layer[i]))
        throw std::runtime_error(fmt::format("{}: {}: found {} for expert {}, expected a finite number",
                                             files.file_of(tensor), tensor, layer[i], i));
    biases.insert(biases.end(), layer.begin(), layer.end());
  }
  return biases;
}

PartsOf master_parts(const Shards& shards) {
  return parts_of_runs(shards,
                       [&shards](const Parameter& p, const OwnedRun& run) { return shards.masters(p.flat, run); });
}

void load_masters(const TensorDirectory& directory, Backend& backend, ParameterSet& parameters,
                  const std::string& prefix, const ShowNumbers& also) {
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    if (!directory.contains(prefix + p.name)) continue;
    require_shape(directory, prefix + p.name, p);
    read_value(directory, prefix + p.name, 0, backend, p, staging, also);
  }
}

PartsOf gradient_parts(const ParameterSet& parameters, const Shards& shards) {
  return parts_of_runs(shards, [&parameters](const Parameter& p, const OwnedRun& run) {
    const Tensor& gradients = parameters.flat_of(p).gradients;
    return gradients.empty() ? Tensor{} : gradients.rows(run.place, run.size);
  });
}

PartsOf shard_parts(const Shards& shards, std::function<Tensor(std::size_t)> shard_of) {
  return parts_of_runs(shards, [shard_of = std::move(shard_of)](const Parameter& p, const OwnedRun& run) {
    const Tensor shard = shard_of(p.flat);
    return shard.empty() ? Tensor{} : shard.rows(run.shard, run.size);
  });
}

std::vector<TensorSpec> tensor_specs(const ParameterSet& whole, const std::string& prefix, Members members,
                                     DType type) {
  const TensorType on_disk = type == DType::bf16 ? TensorType::bf16 : TensorType::f32;
  std::vector<TensorSpec> specs;
  for (const Parameter& p : whole)
    if (members == Members::all || (members == Members::trained ? p.trainable : p.adapter))
      specs.push_back({prefix + p.name, on_disk, dims_of(p.shape)});
  return specs;
}

std::int64_t write_parts(TensorDirectoryWriter& writer, Backend& backend, const ParameterSet& parameters,
                         const PartsOf& parts_of, const std::string& prefix) {
  return write_all(writer, backend, parameters, parts_of, prefix);
}

std::int64_t write_parts(SafetensorsWriter& writer, Backend& backend, const ParameterSet& parameters,
                         const PartsOf& parts_of, const std::string& prefix) {
  return write_all(writer, backend, parameters, parts_of, prefix);
}

void read_parts(const TensorDirectory& directory, Backend& backend, const ParameterSet& parameters,
                const PartsOf& parts_of, const std::string& prefix) {
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    const std::vector<SlicePart> parts = parts_of(p);
    if (parts.empty()) continue;
    const std::string name = prefix + p.name;
    if (!directory.contains(name))
      throw std::runtime_error(
          fmt::format("{}: {}: missing, expected {}", directory.path().string(), name, text(dims_of(p.shape))));
    require_shape(directory, name, p);
    for (const SlicePart& part : parts) {
      const HostView host(backend, part.numbers, staging);
      for_each_piece(p, part.first, part.numbers.elements(),
                     [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
                       directory.read_f32(name, host.numbers().data() + here, on_disk, count);
                     });
      host.store();
    }
  }
}

}  // namespace smoe
