// Adapters in PEFT's format and the models below them, made of numbers that a test draws.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "data/files/tensor_directory.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/peft.h"
#include "trainer/checkpoint/weights.h"

namespace smoe::test {

struct StoredTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> numbers;
  TensorType type = TensorType::f32;
};
using StoredTensors = std::map<std::string, StoredTensor>;

// In [-1, 1), a function of seed and name.
inline StoredTensor drawn(const std::string& name, std::vector<std::int64_t> shape, std::uint64_t seed = 1) {
  StoredTensor tensor{std::move(shape), {}};
  std::int64_t elements = 1;
  for (const std::int64_t dim : tensor.shape) elements *= dim;
  for (std::int64_t i = 0; i < elements; ++i)
    tensor.numbers.push_back(
        static_cast<float>(philox(key_of(seed, name.data(), name.size()), static_cast<std::uint64_t>(i), 0)[0]) *
            0x1p-31f -
        1);
  return tensor;
}

struct AdapterFixture {
  Json config;
  StoredTensors tensors;

  // What PEFT would have written of such a configuration, A and B drawn.
  static AdapterFixture of(const ModelConfig& model, const LoraConfig& lora, std::uint64_t seed = 1) {
    AdapterFixture adapter{{{"peft_type", "LORA"},
                            {"r", lora.r},
                            {"lora_alpha", lora.alpha},
                            {"lora_dropout", lora.dropout},
                            {"use_rslora", lora.rslora},
                            {"target_modules", lora.target_modules},
                            {"bias", "none"},
                            {"task_type", "CAUSAL_LM"}},
                           {}};
    if (lora.layers.size() == 2) {
      Json layers = Json::array();
      for (std::int64_t l = lora.layers[0]; l <= lora.layers[1]; ++l) layers.push_back(l);
      adapter.config["layers_to_transform"] = layers;
    }
    for (const Parameter& p : declare_parameters(model, Mesh::single(), {}, DType::f32, &lora))
      if (p.adapter) adapter.tensors[kPeftPrefix + p.name] = drawn(p.name, {p.shape[0], p.shape[1]}, seed);
    return adapter;
  }

  std::filesystem::path write(const std::filesystem::path& directory) const {
    std::filesystem::create_directories(directory);
    write_json_file(directory / kAdapterConfigFile, config);
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.type, tensor.shape});
    std::filesystem::remove(directory / kAdapterFile);
    auto writer = SafetensorsWriter::create(directory / kAdapterFile, specs);
    for (const auto& [name, tensor] : tensors)
      if (reads_as_f32(tensor.type))
        writer.write_f32(name, 0, tensor.numbers);
      else
        writer.write_raw(name, 0, std::vector<std::byte>(tensor.numbers.size() * bytes_of(tensor.type)));
    writer.finish();
    return directory;
  }

  // Every name with `from` in it has `to` there.
  AdapterFixture renamed(const std::string& from, const std::string& to) const {
    AdapterFixture other{config, {}};
    for (const auto& [name, tensor] : tensors) {
      std::string changed = name;
      if (const auto at = changed.find(from); at != std::string::npos) changed.replace(at, from.size(), to);
      other.tensors[changed] = tensor;
    }
    return other;
  }
};

// Every weight of a model, drawn, by its released name.
inline StoredTensors drawn_weights(const ModelConfig& model, TensorType type = TensorType::f32) {
  StoredTensors tensors;
  for (const TensorSpec& spec : tensor_specs(declare_parameters(model, Mesh::single()))) {
    tensors[spec.name] = drawn(spec.name, spec.shape, 7);
    tensors[spec.name].type = type;
  }
  return tensors;
}

inline std::filesystem::path write_model(const std::filesystem::path& directory, const ModelConfig& model,
                                         const StoredTensors& tensors,
                                         std::uint64_t max_shard_bytes = kDefaultMaxShardBytes) {
  std::filesystem::create_directories(directory);
  HfConfig config;
  config.model = model;
  write_hf_config(directory, config);
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.type, tensor.shape});
  auto writer = TensorDirectoryWriter::create(directory, specs, max_shard_bytes);
  for (const auto& [name, tensor] : tensors) writer.write_f32(name, 0, tensor.numbers);
  writer.finish();
  return directory;
}

}  // namespace smoe::test
