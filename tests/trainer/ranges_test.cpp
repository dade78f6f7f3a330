// The parts of a training step, as a backend is told of them.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/op_decorator.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

struct Told {
  std::vector<std::string> open;  // each with those around it
  std::set<std::string> parts;
  std::set<std::string> with_ops;  // "forward/layer 0/attention: gemm"
};

class Listening final : public OpDecorator {
 public:
  Listening(std::unique_ptr<Backend> backend, Told& told)
      : OpDecorator(*backend), backend_(std::move(backend)), told_(told) {}

  void begin_range(const char* name, int number) override {
    const std::string around = told_.open.empty() ? std::string() : told_.open.back() + "/";
    told_.open.push_back(around + name + (number < 0 ? std::string() : " " + std::to_string(number)));
    told_.parts.insert(told_.open.back());
  }
  void end_range() noexcept override { told_.open.pop_back(); }

 private:
  void run(const char* op, const Call& call) override {
    if (!told_.open.empty()) told_.with_ops.insert(told_.open.back() + ": " + op);
    call(inner(), Placing());
  }
  std::unique_ptr<Backend> backend_;
  Told& told_;
};

class RangesOfAStep : public TrainingTest {
 protected:
  Told listen(Recompute recompute) {
    Told told;
    TrainerConfig c = config("run");
    c.train.steps = 1;
    c.train.recompute = recompute;
    Trainer(assemble(c, mesh(), std::make_unique<Listening>(make_cpu_backend(2), told))).run();
    EXPECT_TRUE(told.open.empty());
    return told;
  }
};

TEST_F(RangesOfAStep, EveryLayerAndEveryPartOfItAreTold) {
  const Told told = listen(Recompute::none);
  for (const char* part : {"micro_batch 0/forward/embedding", "micro_batch 0/forward/layer 0/attention",
                           "micro_batch 0/forward/layer 1/router", "micro_batch 0/forward/layer 1/dispatch",
                           "micro_batch 0/forward/layer 1/experts", "micro_batch 0/forward/layer 1/combine",
                           "micro_batch 0/head", "micro_batch 0/backward/layer 1/combine",
                           "micro_batch 0/backward/layer 1/experts", "micro_batch 0/backward/layer 1/dispatch",
                           "micro_batch 0/backward/layer 0/router", "micro_batch 0/backward/layer 0/attention",
                           "micro_batch 0/backward/embedding", "reduce", "gradient_norm", "optimizer"})
    EXPECT_TRUE(told.parts.contains(part)) << part;
  EXPECT_FALSE(told.parts.contains("micro_batch 0/backward/layer 0/recompute"));
  for (const char* op :
       {"micro_batch 0/forward/layer 1: rms_norm_forward", "micro_batch 0/forward/layer 1/attention: attention_forward",
        "micro_batch 0/forward/layer 1/router: router_forward", "micro_batch 0/forward/layer 1/dispatch: routing_map",
        "micro_batch 0/forward/layer 1/experts: grouped_gemm", "micro_batch 0/forward/layer 1/combine: unpermute",
        "micro_batch 0/head: cross_entropy_backward", "micro_batch 0/backward/layer 0/experts: swiglu_backward",
        "micro_batch 0/backward/layer 0/attention: attention_backward", "gradient_norm: sum_of_squares",
        "optimizer: adamw"})
    EXPECT_TRUE(told.with_ops.contains(op)) << op;
}

TEST_F(RangesOfAStep, WhatIsComputedAgainIsToldApart) {
  const Told told = listen(Recompute::layer);
  EXPECT_TRUE(told.with_ops.contains("micro_batch 0/backward/layer 1/recompute/attention: attention_forward"));
  EXPECT_FALSE(told.with_ops.contains("micro_batch 0/backward/layer 1/attention: attention_forward"));
}

}  // namespace
}  // namespace smoe
