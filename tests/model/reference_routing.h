// The reference's routing, as the model is told of it.
#pragma once

#include "model/model_config.h"
#include "tests/reference/router.h"

namespace smoe {

inline void set_rule(ModelConfig& model, const reference::RoutingRule& rule) {
  model.scoring_func = rule.score == reference::Score::softmax ? Score::softmax : Score::sigmoid;
  model.norm_topk_prob = rule.renormalise;
  model.routed_scaling_factor = rule.scale;
}

}  // namespace smoe
