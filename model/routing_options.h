// What is done in training alone where tokens find their experts. The defaults are Mixtral's: nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/routing.h"

namespace smoe {

struct RoutingOptions {
  // An expert takes ceil(capacity_factor * K S / E) of the assignments of a sequence of S tokens, in the order of the tokens or
  // of the router's probabilities; the others are dropped: their tokens go on without that expert. 0: dropless. Counting in each sequence by itself,
  // and not in all that a rank holds, makes it the same on every layout whose ranks hold whole sequences, and however a
  // batch is cut into micro-batches. Evaluation is dropless. Where a tp group cuts sequences, each piece counts as one, and the layout matters.
  double capacity_factor = 0;
  CapacityOrder capacity_order = CapacityOrder::position;
  // run: how many consecutive tokens it is counted over.
  Capacity capacity(std::int64_t experts, std::int64_t experts_per_token, std::int64_t run) const {
    const double equal_share = static_cast<double>(experts_per_token * run) / static_cast<double>(experts);
    // A product that is a whole number but for its rounding is that number. No expert gets a token twice, nor then more than `run`.
    const double rows = std::ceil(capacity_factor * equal_share * (1 - 1e-12));
    return {static_cast<std::int64_t>(std::min(rows, static_cast<double>(run))), run, capacity_order};
  }

  // The router's input is multiplied by numbers drawn from [1 - jitter, 1 + jitter) (Switch, arXiv 2101.03961) wherever the
  // batch carries noise.
  float jitter = 0;

  // Of the routers' weights, or of the adapters beside them: what the optimizer's rate is multiplied by.
  double learning_rate_scale = 1;
};

}  // namespace smoe
