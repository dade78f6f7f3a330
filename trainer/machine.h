// What the machine that we run on has.
#pragma once

#include <cstdint>

#include "model/model_config.h"

namespace smoe {

// Bytes of memory installed; 0 where the system does not say.
std::uint64_t physical_memory_bytes();

// Throws std::runtime_error, with numbers, where `bytes_per_parameter` of the model's parameters cannot fit: better
// than the kernel's out-of-memory killer. purpose: what they are, in words.
void require_memory(const ModelConfig& model, std::uint64_t bytes_per_parameter, const char* purpose);

}  // namespace smoe
