// Which parameters are not trained: patterns of their released names, in which `*` stands for any run of characters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/router_config.h"
#include "parallel/parameter.h"

namespace smoe {

bool matches_pattern(std::string_view pattern, std::string_view name);

// What router.frozen and train.freeze say together.
std::vector<std::string> frozen_patterns(const RouterConfig& router, const std::vector<std::string>& freeze);

// Freezes what any of the patterns matches, before the set is laid out.
void freeze(ParameterSet& parameters, const std::vector<std::string>& patterns);

// `whole` has all parameters of a model, as one rank declares them, and is frozen by the patterns. Throws
// std::runtime_error where they cannot be meant: one of them matches nothing, they freeze a part of what is read as one
// matrix, or they leave nothing to train.
void check_frozen(const ParameterSet& whole, const std::vector<std::string>& patterns);

// Weights that are trained.
std::int64_t count_trained(const ParameterSet& whole);

}  // namespace smoe
