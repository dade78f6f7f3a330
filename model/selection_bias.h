// A bias an expert and layer, added to the scores where experts are chosen and to no weight: it balances load without a
// loss, and so without a gradient that pulls against the language model's (arXiv 2408.15664, algorithm 1). After each
// update of the weights, with u the rate, for layer l and expert i:
//   b_li += u * sign(mean_j n_lj - n_li),  then  b_l -= mean_j b_lj
// n: assignments of that step's tokens, over all ranks and micro-batches. They are whole numbers, so a bias has the same bits on
// every layout. The mean, which moves no choice, is taken out so that biases do not drift.
//
// A bias is part of the model: evaluation, generation and what goes on from its checkpoint choose by it. Only training
// with a rate above 0 changes it; with a rate of 0 it stays as it was found.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/mixtral.h"

namespace smoe {

class SelectionBias {
 public:
  // The model chooses without one until there are values. All three outlive this.
  SelectionBias(Backend& backend, Arena& persistent, Mixtral& model);

  // [L,E]; the first time, memory for them is taken.
  void set(std::span<const float> values);
  void begin_at_zero();
  // counts: [L,E] assignments over the whole world.
  void update(std::span<const double> counts, double rate);

  bool empty() const { return values_.empty(); }
  const std::vector<float>& values() const { return values_; }  // [L,E], or none

 private:
  Backend& backend_;
  Arena& persistent_;
  Mixtral& model_;
  std::int64_t layers_, experts_;
  std::vector<float> values_;    // what the device has
  std::vector<double> updated_;  // [E] of a layer, in update()
  Tensor tensor_;                // [L,E]
};

}  // namespace smoe
