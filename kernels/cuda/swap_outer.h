// A tensor with its two outer dims swapped: what one library calls [B, H, S] is [H, B, S] to us.
#pragma once

#include <cstdint>

#include "kernels/cuda/memory.h"

namespace smoe::cuda {

// to [second, first, length] = from [first, second, length]
void swap_outer(const Stream& stream, const char* op, const float* from, std::int64_t first, std::int64_t second,
                std::int64_t length, float* to);

}  // namespace smoe::cuda
