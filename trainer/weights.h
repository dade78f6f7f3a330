// Weights between a ParameterSet and tensor files. Names on disk are the released ones; the fused names that
// transformers 5 can also write (mlp.experts.gate_up_proj, mlp.experts.down_proj, mlp.gate) are read too.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tensor_directory.h"
#include "kernels/backend.h"
#include "parallel/parameter.h"

namespace smoe {

// Fills every parameter's slice. Throws one std::runtime_error that lists all tensors that are missing, left over or of
// another shape. f32, bf16 and f16 are converted to f32.
void load_weights(const std::filesystem::path& directory, Backend& backend, ParameterSet& parameters);

// Which tensor of a parameter to move: its value, a gradient, a moment. Must have the slice's shape.
using TensorOf = std::function<Tensor(const Parameter&)>;

// One f32 tensor a parameter, called prefix + its name, of its global shape.
std::vector<TensorSpec> tensor_specs(const ParameterSet& parameters, const std::string& prefix = {});
// Writes this rank's slices of them; reads them back.
void write_slices(TensorDirectoryWriter& writer, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                  const std::string& prefix = {});
void write_slices(SafetensorsWriter& writer, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                  const std::string& prefix = {});
void read_slices(const TensorDirectory& directory, Backend& backend, const ParameterSet& parameters, const TensorOf& tensor_of,
                 const std::string& prefix = {});

}  // namespace smoe
