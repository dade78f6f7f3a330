// How embedding and head divide the vocabulary over the tp group: runs of rows in order, as even as they can be.
#pragma once

#include <string>

#include "model/model_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

// Rows of the largest run: the same on all ranks, so that what is cut by size is cut alike.
inline std::int64_t largest_vocabulary_slice(const ModelConfig& config, const Mesh& mesh) {
  const std::int64_t ranks = mesh.size(Axis::tp);
  return (config.vocab_size + ranks - 1) / ranks;
}

// A [V,D] matrix, split so.
inline Parameter vocabulary_parameter(const std::string& name, const ModelConfig& config, const Mesh& mesh) {
  const std::int64_t ranks = mesh.size(Axis::tp), rank = mesh.rank(Axis::tp);
  const std::int64_t first = config.vocab_size * rank / ranks, last = config.vocab_size * (rank + 1) / ranks;
  return {.name = name,
          .shape = {config.vocab_size, config.hidden_size},
          .first = {first, 0},
          .slice = {last - first, config.hidden_size},
          .split = Split::tp,
          .initial_std = static_cast<float>(config.initializer_range)};
}

}  // namespace smoe
