// Whether two configurations describe the same model, so that the weights and moments of one go on as the other's.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.h"

namespace smoe {

// What a resumed run may have otherwise: where weights came from, how long sequences may be, how initial weights were
// spread, and whether a window was asked for. Every other field makes another model.
inline constexpr std::array<std::string_view, 4> fields_that_may_differ = {"from", "max_position_embeddings",
                                                                           "initializer_range", "sliding_window_given"};

struct ModelDifference {
  std::string field, first, second;  // its name, and its values as text
};
std::vector<ModelDifference> differences(const ModelConfig& first, const ModelConfig& second);

// Throws std::runtime_error, with one line a field, if the checkpoint's model is another one.
void check_same_model(const std::filesystem::path& checkpoint, const ModelConfig& expected);

}  // namespace smoe
