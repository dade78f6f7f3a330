// The points of a sweep: every combination of a grid, or draws.
//
// A drawn value is a pure function of the sweep's seed, the parameter's key and the number of the draw, rounded to six
// digits: point i is the same on every machine, whatever else the sweep varies and however many points follow.
#pragma once

#include <string>
#include <vector>

#include "trainer/study/sweep_config.h"

namespace smoe {

struct SweepPoint {
  // Names a directory: the varying parameters' last parts with their values, aux_loss_coef-0.01_seed-2. Depends on this
  // point's values alone, so it stays when others are added. "base" where nothing varies.
  std::string name;
  std::vector<std::string> values;  // one a parameter, each JSON
};

inline constexpr std::int64_t most_points = 10'000;

// In a grid's order, or that of the draws, of which those that repeat an earlier one are left out. Throws
// std::runtime_error where there are none, more than most_points, or fewer different ones than `runs`.
std::vector<SweepPoint> expand(const SweepConfig& sweep);

// The i-th draw of a parameter, as JSON.
std::string drawn(const SweepParameter& parameter, std::uint64_t seed, std::uint64_t draw);

}  // namespace smoe
