// What the ops of routing are told beside their tensors (backend.h): how experts are chosen and weighed, what an expert
// takes, and which noise is drawn. The defaults are Mixtral's (arXiv 2401.04088).
#pragma once

#include <cstdint>

namespace smoe {

enum class Score : std::uint8_t {
  softmax,  // over all experts
  sigmoid,  // of each expert alone (arXiv 2408.15664)
};

// A token's K experts are those of the largest scores; the weight of each is its score, over the sum of the K where
// renormalised, times scale.
struct RoutingRule {
  Score score = Score::softmax;
  bool renormalise = true;
  float scale = 1;
};

// An expert takes `rows` assignments of each `group` of consecutive tokens (the groups of GShard, arXiv 2006.16668), and what is
// over is dropped: the later tokens, or those to which the router gave the least probability, of two alike the later. No rows:
// dropless, an expert takes all.
enum class CapacityOrder : std::uint8_t { position, probability };
struct Capacity {
  std::int64_t rows = 0, group = 0;
  CapacityOrder order = CapacityOrder::position;
};

// One number in [-1, 1) for every entry of a [T,D] tensor: a pure function of key, layer, token and entry (philox.h), so
// that recomputation, accumulation and every layout draw the same.
struct TokenNoise {
  std::uint64_t key = 0;
  std::int64_t first_token = 0;  // of row 0, among those of the whole batch
  std::uint32_t layer = 0;
  float width = 0;
};

}  // namespace smoe
