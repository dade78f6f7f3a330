// How many ranks there are along each axis. Dense work is divided over dp x tp, expert work over edp x ep:
//   ranks = dp * tp = edp * ep
// Rank r has the coordinates (r / tp, r % tp) and (r / ep, r % ep): neighbours share a tensor-parallel group, and an
// expert-parallel group may lie across dp and tp alike.
#pragma once

#include <string>
#include <vector>

namespace smoe {

struct Layout {
  int ranks = 1, tp = 1, ep = 1;

  int dp() const { return ranks / tp; }
  int edp() const { return ranks / ep; }
  bool divides() const { return ranks >= 1 && tp >= 1 && ep >= 1 && ranks % tp == 0 && ranks % ep == 0; }
  bool operator==(const Layout&) const = default;

  // "dp 4 tp 2 ep 4"
  std::string to_string() const {
    return "dp " + std::to_string(dp()) + " tp " + std::to_string(tp) + " ep " + std::to_string(ep);
  }
};

// Every layout of so many ranks: each pair of divisors.
inline std::vector<Layout> layouts_of(int ranks) {
  std::vector<Layout> all;
  for (int tp = 1; tp <= ranks; ++tp)
    for (int ep = 1; ep <= ranks; ++ep)
      if (const Layout layout{ranks, tp, ep}; layout.divides()) all.push_back(layout);
  return all;
}

}  // namespace smoe
