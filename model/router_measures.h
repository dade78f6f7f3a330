// What the routers of a step did, beside what balance losses are made of (balance_loss.h): counted on this rank as the
// micro-batches go by, and brought together when a step is to be told of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/decoder_layer.h"
#include "parallel/mesh.h"

namespace smoe {

// Of a step, by layer.
struct RouterMeasures {
  std::vector<double> dropped;  // assignments that an expert's capacity left out, over all ranks
  // Rows that the experts of the busiest rank received, over the mean rank's; averaged over the micro-batches. 1: all alike. The
  // one measure that depends on the layout: of a single rank it is 1.
  std::vector<double> rank_load;
};

class RouterMeter {
 public:
  explicit RouterMeter(std::int64_t layers) : layers_(layers) {}

  // Forgets the step before.
  void begin_step();
  // After the forward of each micro-batch. Reads shapes alone, which outlive the activations.
  void add_micro_batch(std::span<const DecoderLayer::Saved> layers);
  // All ranks call it, after the step's last micro-batch.
  RouterMeasures measures(const Mesh& mesh) const;

 private:
  std::int64_t layers_;
  std::vector<double> rows_;     // [micro-batches, L] that this rank's experts received
  std::vector<double> dropped_;  // [L] of this rank's assignments
};

}  // namespace smoe
