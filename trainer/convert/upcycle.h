// Upcycling: a Mixtral made of a dense Llama or Mistral (arXiv 2212.05055), or of several (branch-train-mix, arXiv 2403.07816).
//
// Of a parent's feed-forward network every expert is a copy: gate_proj is w1, up_proj w3, down_proj w2. All else is taken as it
// is; a tied head becomes a tensor of its own. Routers are N(0, std^2), drawn as initial weights are (parallel/initial_values.h).
// A token's routing weights sum to one, so copies give the parent's output whatever the router says and whatever top-k is:
// the new model begins as its parent, to rounding.
//
// granularity G (arXiv 2410.07524): each copy is cut into G experts, of 1/G of the intermediate dims each: expert e holds part e % G
// of copy e / G. The G experts of a copy have the same router row (a virtual group), so a token that chooses top-k experts, a
// multiple of G, chooses whole copies. Its output is theirs over G, and G it must be multiplied by again:
//   SplitScale::exact      on the linear path alone, w3 by the largest power of two up to sqrt(G), w2 by the rest. Begins as
//                          its parent; where G is a power of two, to rounding of the sums alone.
//   SplitScale::cube_root  w1, w3 and w2 each by G^(1/3), as that paper has it for softmax behind top-k. silu is not homogeneous,
//                          silu(c x) != c silu(x), so the model begins near its parent only.
//
// drop r (arXiv 2502.19261): of each expert round(r F') of its F' intermediate dims, chosen anew for each expert and layer, are drawn
// from N(mean, std^2) of the numbers that they replace, of each matrix for itself: rows of w1 and w3 and columns of w2. With r > 0
// the model does not begin as its parent. (The paper's published script chooses other dims for each of the three matrices, and
// shuffles all of them; the paper's text does neither, and is followed.)
//
// Several parents: copy c is of parent c modulo their number. Attention, norms, embeddings and head are their mean, summed in f64, or
// the first's. So is what else the directory holds, tokenizer included.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "model/model_config.h"
#include "trainer/convert/stored_type.h"

namespace smoe {

enum class SplitScale : std::uint8_t { exact, cube_root };
enum class SharedWeights : std::uint8_t { average, first };

struct UpcycleOptions {
  std::vector<std::filesystem::path> dense;  // Hugging Face directories
  std::filesystem::path out;
  std::int64_t experts = 8, top_k = 2;
  std::int64_t granularity = 1;
  SplitScale scale = SplitScale::exact;
  double router_std = 0.02;
  double drop = 0;
  SharedWeights shared = SharedWeights::average;
  // keep: of each tensor its parent's type; of a mean f32 where the parents' types differ; of a router its layer's w1's.
  StoredType type = StoredType::keep;
  std::uint64_t seed = 1;  // of routers and of what drop draws
  std::uint64_t max_shard_bytes = kDefaultMaxShardBytes;
  std::function<void(std::uint64_t done, std::uint64_t all)> on_progress = {};  // bytes
};

struct Upcycled {
  ModelConfig shape;
  std::uint64_t bytes = 0;            // of all tensors
  std::vector<std::string> warnings;  // what a user should know of the parents
};

// What is wrong with the options by themselves, with the option's name; empty: nothing.
std::string problem_with(const UpcycleOptions& options);

// Writes the Mixtral's directory, whole or not at all: weights, config.json with all that is not of the parent's architecture kept,
// the tokenizer's files and generation_config.json. Takes memory for some pieces of tensors.
// Throws std::runtime_error for options, parents (dense_model.h) and directories (new_directory.h) that will not do.
Upcycled upcycle(const UpcycleOptions& options);

}  // namespace smoe
