// dumps/step-000001.safetensors: `grad.NAME`, the whole step's gradient before clipping, and `param.NAME`, the weight
// after the update, of every parameter by its released name, f32; what is frozen has no gradient. For holding a step against another implementation.
// The file is the same whatever the layout: every rank writes what it owns into it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "data/files/files.h"
#include "data/files/safetensors.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/shards.h"

namespace smoe {

// All ranks make one, call both, in this order, and fail together (SharedFailure).
class StepDump {
 public:
  // whole: the whole model's parameters, as one rank declares them.
  StepDump(const std::filesystem::path& directory, std::int64_t step, Backend& backend, const ParameterSet& whole,
           const ParameterSet& parameters, const Shards& shards, const Mesh& mesh);
  void write_gradients();   // when they are summed, before the update
  void write_parameters();  // after it; the file then appears under its name

 private:
  Backend& backend_;
  const ParameterSet& parameters_;
  const Shards& shards_;
  const Mesh& mesh_;
  std::optional<TemporaryPath> path_;  // the root's
  std::optional<SafetensorsWriter> writer_;
  LongWork work_;  // twice the model is written
};

}  // namespace smoe
