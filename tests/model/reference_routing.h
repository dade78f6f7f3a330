// The reference's routing, as the model is told of it.
#pragma once

#include "kernels/routing.h"
#include "model/routing_options.h"
#include "tests/reference/router.h"

namespace smoe {

inline RoutingOptions routing_options(const reference::RoutingRule& rule, double capacity_factor, double jitter) {
  RoutingOptions r;
  r.rule.score = rule.score == reference::Score::softmax ? Score::softmax : Score::sigmoid;
  r.rule.renormalise = rule.renormalise;
  r.rule.scale = static_cast<float>(rule.scale);
  r.capacity_factor = capacity_factor;
  r.jitter = static_cast<float>(jitter);
  return r;
}

}  // namespace smoe
