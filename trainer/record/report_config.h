// What the report needs from a run's config.resolved.yaml. That file is our own printer's (configs/yaml_printer.cpp):
// sections, their keys, and lists of one item a line. The YAML library belongs to configs/, which trainer/ does not
// include, and the report shows text, so lines are enough.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/model_config.h"

namespace smoe {

using FlatConfig = std::vector<std::pair<std::string, std::string>>;  // "optimizer.beta1" -> "0.9", in the file's order

// The items of a list are the value of their key, joined by "; ".
FlatConfig flatten_config(std::string_view yaml);

// Exact parameter counts of the run's model: its shape stands in the configuration or, where `model.from` took it from
// elsewhere, in the latest checkpoint. Nothing if neither tells.
std::optional<ParameterCounts> parameters_of_run(const FlatConfig& config, const std::filesystem::path& run_dir);

}  // namespace smoe
