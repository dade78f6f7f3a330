// Loss and routing balance on held-out data, one source at a time. Samples are taken in file order, so that two
// evaluations of the same source see the same tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/shards/dataset.h"
#include "model/mixtral.h"
#include "trainer/record/metrics.h"

namespace smoe {

struct EvaluateOptions {
  std::int64_t batches = 0;  // of `sequences` samples each; 0: all that the source has, and its tail where it keeps one
  std::int64_t sequences = 4;
  std::string name;  // of the source, as it goes into the result
  // Called after each batch with the samples done and to do.
  std::function<void(std::int64_t, std::int64_t)> on_progress;
};

// Rewinds the context's arenas. `step` goes into the result unchanged. All ranks call it; the dp ranks divide the samples,
// and each gets the result of the whole: its loss does not depend on how many they are. The loss is a mean over targets, and
// balance and load are means over tokens, without padding: a batch of fewer or shorter samples counts for its tokens. Where the samples have
// no target, loss and perplexity are not a number.
EvalMetrics evaluate(Mixtral& model, Context context, const Dataset& dataset, const EvaluateOptions& options,
                     std::int64_t step);

}  // namespace smoe
