// Checks of values, which only a backend can read.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace smoe::cpu {

// Every id of [ids, ids + count) lies in [first, limit): an id outside would read or write foreign memory.
inline void expect_in_range(const char* op, const char* argument, const std::int32_t* ids, std::int64_t count,
                            std::int64_t limit, std::int32_t first = 0) {
  for (std::int64_t i = 0; i < count; ++i)
    if (ids[i] < first || ids[i] >= limit)
      throw std::logic_error(std::string(op) + ": " + argument + "[" + std::to_string(i) + "] is " +
                             std::to_string(ids[i]) + ", expected " + std::to_string(first) + " .. " +
                             std::to_string(limit - 1));
}

}  // namespace smoe::cpu
