// How many experts the kernels of routing are made for. A backend for the CPU knows no such limit.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace smoe::cuda {

inline constexpr int most_experts = 1024;

inline void expect_experts(const char* op, std::int64_t experts) {
  if (experts > most_experts)
    throw std::invalid_argument(std::string(op) + ": " + std::to_string(experts) +
                                " experts, a GPU routes to at most " + std::to_string(most_experts));
}

}  // namespace smoe::cuda
