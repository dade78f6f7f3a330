// Small dense Llamas and Mistrals with made-up weights, as Hugging Face directories, and the logits of what is made of them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "kernels/philox.h"
#include "parallel/mesh.h"
#include "parallel/normals.h"
#include "tests/support/scratch_dir.h"
#include "trainer/inference.h"

namespace smoe::test {

struct DenseShape {
  std::int64_t vocabulary = 61, hidden = 32, intermediate = 24, layers = 2, heads = 4, kv_heads = 2, head_dim = 8;
};

// The tensors of a dense model, by name.
inline std::map<std::string, std::vector<std::int64_t>> dense_tensors(const DenseShape& s, bool with_head = true) {
  std::map<std::string, std::vector<std::int64_t>> all{{"model.embed_tokens.weight", {s.vocabulary, s.hidden}},
                                                       {"model.norm.weight", {s.hidden}}};
  if (with_head) all["lm_head.weight"] = {s.vocabulary, s.hidden};
  for (std::int64_t l = 0; l < s.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const std::int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    all[layer + "input_layernorm.weight"] = all[layer + "post_attention_layernorm.weight"] = {s.hidden};
    all[layer + "self_attn.q_proj.weight"] = {q, s.hidden};
    all[layer + "self_attn.k_proj.weight"] = all[layer + "self_attn.v_proj.weight"] = {kv, s.hidden};
    all[layer + "self_attn.o_proj.weight"] = {s.hidden, q};
    all[layer + "mlp.gate_proj.weight"] = all[layer + "mlp.up_proj.weight"] = {s.intermediate, s.hidden};
    all[layer + "mlp.down_proj.weight"] = {s.hidden, s.intermediate};
  }
  return all;
}

inline Json dense_config(const std::string& type, const DenseShape& s = {}) {
  return {{"architectures", {type == "llama" ? "LlamaForCausalLM" : "MistralForCausalLM"}},
          {"model_type", type},
          {"hidden_act", "silu"},
          {"vocab_size", s.vocabulary},
          {"hidden_size", s.hidden},
          {"intermediate_size", s.intermediate},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", s.heads},
          {"num_key_value_heads", s.kv_heads},
          {"head_dim", s.head_dim},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 5000.0},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"torch_dtype", "float32"}};
}

// Weights large enough that every part of a layer matters, with a mean of their own.
inline std::vector<float> made_up_weights(const std::string& name, std::size_t count, std::uint64_t seed) {
  std::vector<float> values(count);
  standard_normals(key_of(seed, name.data(), name.size()), 0, static_cast<std::int64_t>(count), values.data());
  const bool norm = name.ends_with("norm.weight");
  for (float& x : values) x = norm ? 1 + 0.1f * x : 0.02f + 0.2f * x;
  return values;
}

struct DenseDirectory {
  std::string type = "llama";
  DenseShape shape{};
  Json config = Json::object();  // keys in place of dense_config's
  TensorType weights = TensorType::f32;
  bool with_head = true;
  std::uint64_t seed = 1;
  std::uint64_t max_shard_bytes = kDefaultMaxShardBytes;
  std::map<std::string, std::vector<std::int64_t>> more{};  // tensors beside those of the shape
  std::map<std::string, TensorType> types{};                // of single tensors

  const DenseDirectory& write(const std::filesystem::path& directory) const {
    std::filesystem::create_directories(directory);
    Json json = dense_config(type, shape);
    if (!config.empty()) json.update(config);
    write_json_file(directory / "config.json", json);
    auto tensors = dense_tensors(shape, with_head);
    tensors.insert(more.begin(), more.end());
    std::vector<TensorSpec> specs;
    for (const auto& [name, dims] : tensors)
      specs.push_back({name, types.contains(name) ? types.at(name) : weights, dims});
    auto writer = TensorDirectoryWriter::create(directory, specs, max_shard_bytes);
    for (const TensorSpec& spec : specs) {
      std::size_t count = 1;
      for (const std::int64_t dim : spec.shape) count *= static_cast<std::size_t>(dim);
      writer.write_f32(spec.name, 0, made_up_weights(spec.name, count, seed));
    }
    writer.finish();
    return *this;
  }
};

inline std::string bytes_of_tensor(const TensorDirectory& directory, const std::string& name) {
  const auto bytes = directory.raw(name);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::vector<float> numbers_of(const TensorDirectory& directory, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(directory.info(name).elements()));
  directory.read_f32(name, values.data(), 0, directory.info(name).elements());
  return values;
}

// [S,V] of one sequence.
inline std::vector<float> logits_of_directory(const std::filesystem::path& directory,
                                              const std::vector<std::int32_t>& ids) {
  const Mesh mesh = Mesh::single();
  const auto length = static_cast<std::int64_t>(ids.size());
  InferenceModel model(directory, mesh, length, make_cpu_backend(1));
  Context context = model.fresh_context();
  const TokenBatch batch = make_token_batch(context.backend, context.activations, 1, length, ids);
  Mixtral::Saved saved;
  model.model().forward(context, batch, Keep::all, saved);
  const Tensor out = context.activations.take({length, model.shape().vocab_size});
  model.model().logits(context, saved.hidden, out);
  std::vector<float> host(static_cast<std::size_t>(out.elements()));
  model.backend().copy_to_host(host.data(), out);
  return host;
}

}  // namespace smoe::test
