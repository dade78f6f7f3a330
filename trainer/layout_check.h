// Whether a layout can train a configuration: asked before anything is allocated.
#pragma once

#include <cstdint>

#include <string>
#include <vector>

#include "model/model_config.h"
#include "parallel/layout.h"

namespace smoe {

struct BatchShape {
  std::int64_t sequence_length = 1, global_batch_size = 1, micro_batch_size = 1;
};

// What does not fit, one sentence each, with the numbers and the keys; empty: the layout works.
std::vector<std::string> layout_problems(const ModelConfig& model, const BatchShape& batch, const Layout& layout);

// Throws std::runtime_error with the problems, and with the layouts of as many ranks that would work.
void require_layout(const ModelConfig& model, const BatchShape& batch, const Layout& layout);

}  // namespace smoe
