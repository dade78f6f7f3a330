// What a configuration must satisfy beyond the types of its values.
#pragma once

#include <string>
#include <vector>

#include "configs/config_error.h"
#include "configs/run_config.h"

namespace smoe {

// Values outside their range and choices that are not available yet. The problems carry keys and no places.
std::vector<ConfigProblem> find_range_problems(const RunConfig& config);

// Relations between fields that do not hold, for a configuration whose values are all in range.
// resolved_model: config.model holds its shape; false where that is still to be read from model.from.
std::vector<ConfigProblem> find_relation_problems(const RunConfig& config, bool resolved_model);

// For a configuration whose model was read from a Hugging Face directory: throws ConfigError, naming source.
void validate(const RunConfig& config, const std::string& source);

// What is legal but probably not meant, a sentence each.
std::vector<std::string> find_warnings(const RunConfig& config);

}  // namespace smoe
