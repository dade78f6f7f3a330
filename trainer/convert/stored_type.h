// The type in which a conversion stores the weights that it writes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace smoe {

enum class StoredType : std::uint8_t { keep, f32, bf16 };  // keep: that of what is read

// As --dtype names them, in their order.
inline constexpr std::array<std::string_view, 3> stored_type_names = {"keep", "fp32", "bf16"};

// name: one of those.
constexpr StoredType stored_type_of(std::string_view name) {
  return name == "keep" ? StoredType::keep : name == "fp32" ? StoredType::f32 : StoredType::bf16;
}

}  // namespace smoe
