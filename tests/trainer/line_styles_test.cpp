#include "trainer/record/line_styles.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string>

namespace smoe {
namespace {

constexpr std::size_t many = 300;

std::array<double, 3> channels(const std::string& color) {
  std::array<double, 3> values{};
  for (std::size_t i = 0; i < 3; ++i) values[i] = std::stoi(color.substr(1 + 2 * i, 2), nullptr, 16) / 255.0;
  return values;
}

// Weighted as the eye is (ITU-R BT.709), without the gamma.
double brightness(const std::string& color) {
  const auto [red, green, blue] = channels(color);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

double distance(const std::string& a, const std::string& b) {
  const auto x = channels(a), y = channels(b);
  return std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

TEST(LineStyles, NoTwoLinesShareAColour) {
  std::set<std::string> light, dark;
  for (std::size_t line = 0; line < many; ++line) {
    const LineStyle style = line_style(line);
    EXPECT_EQ(style.light.size(), 7u) << style.light;
    EXPECT_TRUE(light.insert(style.light).second) << "line " << line << ": " << style.light << " is taken";
    EXPECT_TRUE(dark.insert(style.dark).second) << "line " << line << ": " << style.dark << " is taken";
  }
}

TEST(LineStyles, LinesBeyondThePaletteAreDashed) {
  for (std::size_t line = 0; line < many; ++line) EXPECT_EQ(line_style(line).dash.empty(), line < 8) << line;
}

// As many lines as eight sources in five runs: those that look alike in colour differ in their dash.
TEST(LineStyles, ColoursThatAreCloseHaveOtherDashes) {
  for (std::size_t a = 0; a < 48; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const LineStyle one = line_style(a), other = line_style(b);
      if (one.dash != other.dash) continue;
      EXPECT_GT(distance(one.light, other.light), 0.12) << a << " " << one.light << ", " << b << " " << other.light;
      EXPECT_GT(distance(one.dark, other.dark), 0.10) << a << " " << one.dark << ", " << b << " " << other.dark;
    }
  }
}

TEST(LineStyles, LinesStandOutFromThePage) {
  for (std::size_t line = 0; line < many; ++line) {
    EXPECT_LT(brightness(line_style(line).light), 0.65) << line << ": " << line_style(line).light << " on white";
    EXPECT_GT(brightness(line_style(line).dark), 0.40) << line << ": " << line_style(line).dark << " on nearly black";
  }
}

}  // namespace
}  // namespace smoe
