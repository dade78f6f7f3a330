// Random numbers for tensors of any size and place, without as many of the host's: a block is drawn once, and repeated by copies
// of the backend. Never zeros, never one value: tensor cores run faster on those than on what a model multiplies.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/arena.h"

namespace smoe::checks {

class RepeatedNumbers {
 public:
  static constexpr std::int64_t period = (std::int64_t{1} << 22) - 3;  // odd, so that rows do not repeat in step

  // The block, of any length; the backend outlives this.
  RepeatedNumbers(Backend& backend, const std::vector<float>& block);

  // Any f32 or bf16, which is rounded. Goes on in the block where the tensor before ended.
  void fill(const Tensor& to);

 private:
  Backend& backend_;
  Arena arena_;
  Tensor f32_, bf16_;  // the block
  std::int64_t next_ = 0;
};

// [period], the same on every machine.
std::vector<float> uniform_block();                          // in [-1, 1)
std::vector<float> normal_block(double standard_deviation);  // of mean 0

}  // namespace smoe::checks
