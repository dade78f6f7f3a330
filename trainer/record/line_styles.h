// How the lines of a chart are told apart, for any number of them: a colour no other line has, and beyond the palette a
// dash as well, for eyes and printers that see few colours.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace smoe {

struct LineStyle {
  std::string light, dark;  // "#rrggbb", on a light and on a dark page
  std::vector<int> dash;    // lengths in pixels, drawn and left out in turns; empty: a solid line
};

// Styles 0 to 7 are the palette; the same line has the same style however many there are.
LineStyle line_style(std::size_t line);

}  // namespace smoe
