// Short whole runs, each on a backend that it is given: evaluation, checkpoints and a dump within a few steps.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tests/trainer/training_fixture.h"

namespace smoe {

class WholeRunTest : public TrainingTest {
 protected:
  // In the precision named: a device's own would be bf16.
  TrainerConfig tiny(const std::string& output, std::int64_t steps, PrecisionChoice precision) const {
    TrainerConfig c = config(output);
    c.train.precision = precision;
    c.train.steps = steps;
    c.checkpoint.interval = c.eval.interval = 2;
    c.log.dump_steps = {1};
    return c;
  }
  void train_on(std::unique_ptr<Backend> backend, const TrainerConfig& c) const {
    EXPECT_EQ(Trainer(assemble(c, mesh(), std::move(backend))).run().end, RunEnd::complete);
  }
};

}  // namespace smoe
