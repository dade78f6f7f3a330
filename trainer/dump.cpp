#include "trainer/dump.h"

#include <fmt/format.h>

#include "trainer/weights.h"

namespace smoe {
namespace {
const std::string gradient_prefix = "grad.", parameter_prefix = "param.";

std::vector<TensorSpec> both(const ParameterSet& parameters) {
  auto specs = tensor_specs(parameters, gradient_prefix);
  const auto values = tensor_specs(parameters, parameter_prefix);
  specs.insert(specs.end(), values.begin(), values.end());
  return specs;
}

std::filesystem::path file_in(const std::filesystem::path& directory, std::int64_t step) {
  make_directories(directory);
  return directory / fmt::format("step-{:06}.safetensors", step);
}
}  // namespace

StepDump::StepDump(const std::filesystem::path& directory, std::int64_t step, Backend& backend, const ParameterSet& parameters)
    : backend_(backend), parameters_(parameters), path_(file_in(directory, step)), writer_(SafetensorsWriter::create(path_.path(), both(parameters))) {}

void StepDump::write_gradients() {
  write_slices(writer_, backend_, parameters_, [](const Parameter& p) { return p.gradient; }, gradient_prefix);
}

void StepDump::write_parameters() {
  write_slices(writer_, backend_, parameters_, [](const Parameter& p) { return p.value; }, parameter_prefix);
  writer_.finish();
  path_.commit();
}

}  // namespace smoe
