// Weights between a ParameterSet and tensor files. Names on disk are the released ones; others are read too
// (tensor_places.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "parallel/parameter.h"
#include "parallel/shards.h"

namespace smoe {

// Fills every parameter's slice, adapters aside. Throws one std::runtime_error that lists all tensors of the whole model that are missing,
// left over, of another shape, or of a type other than f32, f64, bf16 and f16, which are converted to f32. The selection
// bias that a directory may have beside them (below) is checked likewise, and not read.
// tied_head: where the file holds only one of embedding and head, both get its values. also: is shown each slice in f32.
void load_weights(const std::filesystem::path& directory, Backend& backend, const ModelConfig& model,
                  ParameterSet& parameters, bool tied_head = false, const ShowNumbers& also = {});

// The tensor of a layer's selection bias (model/selection_bias.h), [E]: called as transformers calls DeepSeek-V3's, whose
// routers choose by one too.
std::string selection_bias_name(std::int64_t layer);
// One f32 tensor a layer.
std::vector<TensorSpec> selection_bias_specs(const ModelConfig& model);
// [L,E]; empty where the directory has none. That it is whole, load_weights() has found. Throws std::runtime_error where a
// number is not finite.
std::vector<float> load_selection_bias(const std::filesystem::path& directory, const ModelConfig& model);

// As load_weights(), for the masters that a checkpoint has beside rounded weights, called prefix + the parameter's name:
// where there are any, they take the place of what load_weights() has read.
void load_masters(const TensorDirectory& directory, Backend& backend, ParameterSet& parameters,
                  const std::string& prefix, const ShowNumbers& also);

// A run of the elements of a parameter's slice, and where its numbers lie.
struct SlicePart {
  std::int64_t first = 0;  // element of the slice
  Tensor numbers;          // [n]
};
// Which numbers of a parameter to move.
using PartsOf = std::function<std::vector<SlicePart>(const Parameter&)>;

// What this rank owns of the numbers that are updated (Shards::masters), or of a frozen parameter's values; written as
// bf16 they are rounded to the values.
PartsOf master_parts(const Shards& shards);
// What it owns of the gradients, in place in the flat buffers. A frozen parameter has none.
PartsOf gradient_parts(const ParameterSet& parameters, const Shards& shards);
// What it owns of a tensor that has its shard of each flat buffer, as the moments do; none where that tensor is empty.
PartsOf shard_parts(const Shards& shards, std::function<Tensor(std::size_t flat)> shard_of);

enum class Members : std::uint8_t { all, trained, adapters };
// One tensor, f32 or bf16, for every parameter of the whole model, every one that is trained, or every adapter, called prefix + its name, of its
// global shape. whole: the parameters as one rank declares them, the same list on every rank of every layout, while a
// rank's own ParameterSet names only the experts that it holds.
std::vector<TensorSpec> tensor_specs(const ParameterSet& whole, const std::string& prefix = {},
                                     Members members = Members::all, DType type = DType::f32);

// Writes the parts of this rank; all ranks' together are the whole. Returns how many elements.
std::int64_t write_parts(TensorDirectoryWriter& writer, Backend& backend, const ParameterSet& parameters,
                         const PartsOf& parts_of, const std::string& prefix = {});
std::int64_t write_parts(SafetensorsWriter& writer, Backend& backend, const ParameterSet& parameters,
                         const PartsOf& parts_of, const std::string& prefix = {});
void read_parts(const TensorDirectory& directory, Backend& backend, const ParameterSet& parameters,
                const PartsOf& parts_of, const std::string& prefix = {});

}  // namespace smoe
