// What a forward keeps for backward, and what backward computes again instead.
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

// What a forward leaves of its layers.
enum class Keep : std::uint8_t {
  all,      // every activation
  inputs,   // each layer's input: backward runs the layer's forward again
  nothing,  // no backward follows: a layer's activations make room for the next one's
};

constexpr Keep kept_with(Recompute recompute) { return recompute == Recompute::none ? Keep::all : Keep::inputs; }

inline constexpr auto choices(Recompute) {
  return std::array<std::pair<Recompute, std::string_view>, 3>{
      {{Recompute::none, "none"}, {Recompute::layer, "layer"}, {Recompute::expert, "expert"}}};
}

}  // namespace smoe
