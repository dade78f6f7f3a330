// Routing that is told to the routers, whatever they score: for timing a balanced step, or one that is uneven by a known
// amount, without waiting for routers that route so. A benchmark's and nobody else's: experts are trained on tokens that
// their routers did not choose, so every output of such a run says that it is one.
//
// Token t of a step takes the K experts on which u_t, u_t + 1, ..., u_t + K - 1 fall where the experts lie side by side on
// [0, K), each as wide as its number of assignments a token: systematic sampling (Madow 1949), under which no token takes
// an expert twice and loads are what they should be to within a token or two of any stretch. The experts' weights are the
// router's own, and gradients are right.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/router_config.h"

namespace smoe {

class ForcedRouter {
 public:
  // Any forced routing but none. A skewed one's loads fall from expert to expert by a constant factor, from the first's,
  // which is 1 + max_vio of the mean. Throws std::logic_error where max_vio is not below most_max_vio().
  ForcedRouter(const ForcedRouting& wanted, std::int64_t experts, std::int64_t experts_per_token);

  // [tokens,E] for tokens first, first + 1, ... of a step over all ranks: what is added to the scores where experts are
  // chosen (Backend::router_forward), and decides, because no score is above 1.
  void preferences(std::int64_t first, std::span<float> numbers) const;
  // What each expert gets of all assignments in the long run [E].
  std::vector<double> shares() const;

 private:
  bool uniform_;
  std::int64_t experts_, experts_per_token_;
  std::vector<double> edges_;  // [E + 1] where the experts lie on [0, K)
};

// "uniform", or "skewed, MaxVio 1.5"; "" where none is forced.
std::string describe(const ForcedRouting& forced);

}  // namespace smoe
