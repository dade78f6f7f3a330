// What backward computes again instead of finding it kept.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace smoe {

enum class Recompute : std::uint8_t {
  none,    // every activation is kept from forward to backward
  layer,   // only each layer's input is kept; backward runs the layer's forward again: the same bits, less memory
  expert,  // not available yet
};

inline constexpr auto choices(Recompute) {
  return std::array<std::pair<Recompute, std::string_view>, 3>{
      {{Recompute::none, "none"}, {Recompute::layer, "layer"}, {Recompute::expert, "expert"}}};
}

}  // namespace smoe
