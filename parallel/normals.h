// The stream of standard normal numbers that initial weights are taken from: number i is a pure function of (key, i).
#pragma once

#include <cstdint>

namespace smoe {

// out[i] = number first + i of the stream `key`. Four come from one Philox block by Box and Muller's transformation
// (1958), with our own logarithm, sine and cosine (to some 2e-7): those of the C library differ between its versions
// and CPUs, and take a dozen times as long. |x| <= 6.7.
void standard_normals(std::uint64_t key, std::int64_t first, std::int64_t count, float* out);

}  // namespace smoe
