// dumps/step-000001.safetensors: `grad.NAME`, the whole step's gradient before clipping, and `param.NAME`, the weight
// after the update, of every parameter by its released name, f32. For holding a step against another implementation.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/files.h"
#include "data/safetensors.h"
#include "kernels/backend.h"
#include "parallel/parameter.h"

namespace smoe {

class StepDump {
 public:
  StepDump(const std::filesystem::path& directory, std::int64_t step, Backend& backend, const ParameterSet& parameters);
  void write_gradients();   // before the update
  void write_parameters();  // after it; the file then appears under its name

 private:
  Backend& backend_;
  const ParameterSet& parameters_;
  TemporaryPath path_;
  SafetensorsWriter writer_;
};

}  // namespace smoe
