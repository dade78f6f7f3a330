// Every op of kernels/backend.h that moves or computes numbers, at the bench cases of tests/kernels/op_cases*.h, as
// calls ready to be timed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "tests/kernels/op_cases.h"

namespace smoe::bench {

using op_cases::Index;

// Tensors on the backend for one call, with reproducible contents.
class Inputs {
 public:
  Inputs(Backend& backend, Arena& arena) : backend_(backend), arena_(arena) {}
  Backend& backend() const { return backend_; }

  Tensor output(Shape shape);                    // zeros
  Tensor output_i32(Shape shape);                // zeros
  Tensor scalar();                               // [1] f64, zero
  Tensor uniform(Shape shape, float scale = 1);  // in [-scale, scale)
  Tensor constant(Shape shape, float value);
  Tensor i32(Shape shape, const std::vector<std::int32_t>& values);
  Tensor ids(Shape shape, Index bound);  // each in [0, bound)

 private:
  std::uint32_t next();

  Backend& backend_;
  Arena& arena_;
  std::uint64_t state_ = 1;
};

struct OpCall {
  std::string op;    // the function's name in kernels/backend.h
  std::string what;  // the shape, in the letters of kernels/backend.h
  Work work;         // of one call
  std::function<std::function<void()>(Inputs&)> prepare;  // makes the tensors of one call and returns the call
};

std::vector<OpCall> dense_calls();      // op_calls_dense.cpp
std::vector<OpCall> attention_calls();  // op_calls_attention.cpp
std::vector<OpCall> moe_calls();        // op_calls_moe.cpp
std::vector<OpCall> all_calls();

template <class Case>
std::vector<Case> bench_cases(std::vector<Case> cases) {
  std::erase_if(cases, [](const Case& c) { return !c.bench; });
  return cases;
}

}  // namespace smoe::bench
