// What this machine reaches at the moment of asking: the two ceilings that an op's rate is held against.
#pragma once

#include <cstdint>

#include "kernels/arena.h"

namespace smoe::bench {

class MachineRates {
 public:
  // n: of the square matrices. elements: of each of the triad's arrays. threads: as many as the backend uses.
  MachineRates(Backend& backend, std::int64_t n, std::int64_t elements, int threads);

  double multiply_adds();  // flop/s of one n x n x n product, the backend's own
  double triad();          // bytes/s of a = b + s c (McCalpin's STREAM), three f32 an element, no write-allocate counted

 private:
  Backend& backend_;
  Arena arena_;
  Tensor a_, b_, c_;  // of the product
  Tensor x_, y_, z_;  // of the triad: memory of the backend, since the size of its pages matters
  int threads_;
};

}  // namespace smoe::bench
