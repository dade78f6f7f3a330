#include "trainer/record/line_styles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace smoe {
namespace {

struct Colour {
  const char* light;
  const char* dark;
};

constexpr std::array<Colour, 8> palette = {{{"#2456d6", "#86a9ff"},
                                            {"#cf4a12", "#ff9a66"},
                                            {"#0b8457", "#4fd1a1"},
                                            {"#9b27af", "#da92ee"},
                                            {"#a8780b", "#e8bf5a"},
                                            {"#0a86a3", "#5fcbe2"},
                                            {"#bf1f4d", "#ff8aa8"},
                                            {"#4f7c12", "#aed468"}}};

// Of each next eight lines one; then from the start.
const std::array<std::vector<int>, 5> dashes = {{{8, 4}, {2, 3}, {10, 3, 2, 3}, {16, 4}, {5, 2, 5, 6}}};

// hue in turns, saturation and lightness in [0, 1].
std::string hex(double hue, double saturation, double lightness) {
  const double chroma = saturation * std::min(lightness, 1.0 - lightness);
  const auto channel = [&](double shift) {
    const double k = std::fmod(shift + 12.0 * hue, 12.0);
    return static_cast<int>(
        std::lround(255.0 * (lightness - chroma * std::clamp(std::min(k - 3.0, 9.0 - k), -1.0, 1.0))));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(0.0), channel(8.0), channel(4.0));
}

}  // namespace

LineStyle line_style(std::size_t line) {
  if (line < palette.size()) return {palette[line].light, palette[line].dark, {}};
  const std::size_t further = line - palette.size(), round = further / palette.size();
  // Steps of the golden ratio never come back to a hue and leave no wide gap; each round has a lightness beside it.
  const double hue = std::fmod(0.07 + 0.6180339887498949 * static_cast<double>(further), 1.0);
  const double step = static_cast<double>(round % 3);
  return {hex(hue, 0.75, 0.26 + 0.05 * step), hex(hue, 0.70, 0.78 - 0.06 * step), dashes[round % dashes.size()]};
}

}  // namespace smoe
