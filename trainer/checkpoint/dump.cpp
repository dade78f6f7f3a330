#include "trainer/checkpoint/dump.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "parallel/comm/agreement.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace {
const std::string gradient_prefix = "grad.", parameter_prefix = "param.";
}

StepDump::StepDump(const std::filesystem::path& directory, std::int64_t step, Backend& backend,
                   const ParameterSet& whole, const ParameterSet& parameters, const Shards& shards, const Mesh& mesh)
    : backend_(backend),
      parameters_(parameters),
      shards_(shards),
      mesh_(mesh),
      work_(mesh.session(), "dumping a step") {
  Communicator& world = mesh.group(Axis::world);
  std::string laid_out;
  together(world, "dump.lay_out", [&] {
    if (!mesh.is_root()) return;
    make_directories(directory);
    path_.emplace(directory / fmt::format("step-{:06}.safetensors", step));
    std::vector<TensorSpec> tensors = tensor_specs(whole, gradient_prefix, Members::trained);
    for (TensorSpec& tensor : tensor_specs(whole, parameter_prefix)) tensors.push_back(std::move(tensor));
    SafetensorsWriter::lay_out(path_->path(), tensors);
    laid_out = path_->path().string();
  });
  laid_out = broadcast_text(world, laid_out, 0, "dump.path");
  together(world, "dump.open", [&] { writer_.emplace(SafetensorsWriter::open_for_slices(laid_out)); });
}

void StepDump::write_gradients() {
  together(mesh_.group(Axis::world), "dump.gradients", [&] {
    write_parts(*writer_, backend_, parameters_, gradient_parts(parameters_, shards_), gradient_prefix);
  });
}

void StepDump::write_parameters() {
  Communicator& world = mesh_.group(Axis::world);
  together(world, "dump.parameters", [&] {
    write_parts(*writer_, backend_, parameters_, master_parts(shards_), parameter_prefix);
    writer_->finish();
  });
  together(world, "dump.commit", [&] {
    if (path_) path_->commit();
  });
}

}  // namespace smoe
