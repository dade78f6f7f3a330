// One text for all of a model's weights, the same at every layout.
#pragma once

#include <string>

#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

// SHA-256 of a line a parameter: its name, its shape, and the sum, modulo 2^64, of a 64-bit mix of each element's place in
// the whole tensor and its value's bits (of a bf16 one, widened to f32). The sum has no order, so whoever holds a
// slice adds its part. whole: the whole model's parameters, declared; own: this rank's. All ranks call it; the hash is the same
// on every one.
std::string hash_of_weights(Backend& backend, const ParameterSet& whole, const ParameterSet& own, const Mesh& mesh);

}  // namespace smoe
