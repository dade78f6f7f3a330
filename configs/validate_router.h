// What the options of the router must satisfy together (validate.h).
#pragma once

#include <string>
#include <vector>

#include "configs/config_error.h"
#include "configs/run_config.h"

namespace smoe {

std::vector<ConfigProblem> find_router_problems(const RunConfig& config, bool resolved_model);
std::vector<std::string> find_router_warnings(const RunConfig& config);

}  // namespace smoe
