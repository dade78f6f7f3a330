// Two backends, one held against the other: every op runs on both, from the same inputs, and the first whose results
// differ is named. What the caller gets are the first backend's numbers, bit for bit, so a whole training step can run
// on it until something differs.
//
// All arguments are compared, inputs too: an op that writes where it should read is found. Slow: each argument is copied
// to the second backend and back.
#pragma once

#include "kernels/op_decorator.h"

namespace smoe {

class CheckBackend final : public OpDecorator {
 public:
  // tolerance: of the largest difference in a tensor, over the largest entry that it has on `first`; i32 must be equal.
  // An op that differs throws std::runtime_error: "gemm: a tensor [4, 8] f32 differs: entry 5 is ...".
  CheckBackend(Backend& first, Backend& second, double tolerance)
      : OpDecorator(first), second_(second), tolerance_(tolerance) {}

 private:
  void run(const char* op, const Call& call) override;

  Backend& second_;
  double tolerance_;
};

}  // namespace smoe
