#include "trainer/checkpoint/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/host_view.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint/slice_pieces.h"
#include "trainer/checkpoint/tensor_places.h"

namespace smoe {
namespace {

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

std::string text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Those of the directory's selection bias: none, or one a layer.
std::vector<TensorSpec> selection_bias_in(const TensorDirectory& files, const ModelConfig& model) {
  const std::vector<TensorSpec> specs = selection_bias_specs(model);
  const bool any = std::any_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) {
    return files.contains(place_in(files, model, spec.name, spec.shape).tensor);
  });
  return any ? specs : std::vector<TensorSpec>();
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

void read_value(const TensorDirectory& files, const TensorPlace& place, Backend& backend, const Parameter& p,
                std::vector<float>& staging, const ShowNumbers& also) {
  const HostView host(backend, p.value, staging);
  read_slice(files, place, p, host.numbers().data());
  if (also) also(p, host.numbers());
  host.store();
}

// What quantised weights are called by those who make them (GPTQ, AWQ, bitsandbytes, compressed-tensors, fp8).
void refuse_quantised(const TensorDirectory& files) {
  constexpr std::array<std::string_view, 9> endings = {".qweight",      ".qzeros",           ".g_idx",
                                                       ".absmax",       ".quant_map",        ".weight_packed",
                                                       ".weight_scale", ".weight_scale_inv", ".qscale_weight"};
  for (const std::string& name : files.names()) {
    const bool quantised = std::any_of(endings.begin(), endings.end(), [&](std::string_view ending) {
      return name.ends_with(ending) || name.find(std::string(ending) + ".") != std::string::npos;
    });
    if (quantised)
      throw std::runtime_error(
          fmt::format("{}: its weights are quantised ({} of {}), which are not read: name the model that it was "
                      "quantised from",
                      files.file_of(name), name, name_of(files.info(name).type)));
  }
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
  refuse_quantised(files);
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
    const TensorPlace place = place_of(p.name, p.shape);
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
    read_value(files, place_of(p.name, dims_of(p.shape)), backend, p, staging, also);
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
    read_value(directory, {prefix + p.name, dims_of(p.shape)}, backend, p, staging, also);
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
