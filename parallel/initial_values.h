// The values that a parameter starts with.
#pragma once

#include <cstdint>

#include "parallel/parameter.h"

namespace smoe {

// N(mean, std^2) from a counter-based generator keyed by (seed, name) at each element's global index: the same numbers
// whatever slice a rank holds. slice_values [slice] is on the host.
void fill_initial_values(std::uint64_t seed, const Parameter& parameter, float* slice_values);

}  // namespace smoe
