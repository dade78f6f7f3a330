// Whole runs on the emulated CUDA backend: the bits of a run, its checkpoints, the CPU's numbers, text.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/trainer/whole_run.h"
#include "trainer/generate.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

class CudaTraining : public WholeRunTest, public testing::WithParamInterface<PrecisionChoice> {
 protected:
  ~CudaTraining() override {
    cuda_on_host::set_order(0);
    cuda_on_host::set_late(false);
  }

  TrainerConfig tiny(const std::string& output, std::int64_t steps) const {
    return WholeRunTest::tiny(output, steps, GetParam());
  }
  // Of what two backends round differently, relative: sums of other orders; in bf16, a few roundings of activations too.
  double tolerance() const { return GetParam() == PrecisionChoice::fp32 ? 2e-5 : 2e-2; }
  void expect_near(const std::string& found, const std::string& expected) const {
    const MetricsLog a = metrics(found), b = metrics(expected);
    ASSERT_EQ(a.steps.size(), b.steps.size());
    for (std::size_t i = 0; i < a.steps.size(); ++i) {
      EXPECT_NEAR(a.steps[i].lm_loss, b.steps[i].lm_loss, tolerance() * b.steps[i].lm_loss);
      EXPECT_NEAR(a.steps[i].grad_norm, b.steps[i].grad_norm, 5 * tolerance() * b.steps[i].grad_norm);
    }
  }
};

// One stream, fixed orders of sums: neither the order of a block's threads nor when the device gets to its work decides a bit.
TEST_P(CudaTraining, ResumesAndRepeatsWithTheSameBitsInAnyOrderOfThreads) {
  train_on(make_cuda_backend(), tiny("whole", 4));
  cuda_on_host::set_order(5);
  cuda_on_host::set_late(true);
  train_on(make_cuda_backend(), tiny("parts", 2));
  train_on(make_cuda_backend(), tiny("parts", 4));  // goes on from the checkpoint
  EXPECT_EQ(results("whole"), results("parts"));
}

TEST_P(CudaTraining, ComputesWhatTheCpuDoes) {
  train_on(make_cpu_backend(1), tiny("cpu", 6));
  train_on(make_cuda_backend(), tiny("cuda", 6));
  expect_near("cuda", "cpu");
}

TEST_P(CudaTraining, RecomputesAndAccumulatesToTheSameBits) {
  const auto with = [&](const std::string& output, Recompute recompute) {
    TrainerConfig c = tiny(output, 2);
    c.train.recompute = recompute;
    c.train.micro_batch_size = 1;
    return c;
  };
  train_on(make_cuda_backend(), with("kept", Recompute::none));
  train_on(make_cuda_backend(), with("again", Recompute::layer));
  EXPECT_EQ(results("kept"), results("again"));
}

// A checkpoint says nothing of the device that wrote it.
TEST_P(CudaTraining, CheckpointsPassFromTheCpuToTheDeviceAndBack) {
  train_on(make_cpu_backend(1), tiny("cpu", 6));
  train_on(make_cpu_backend(1), tiny("mixed", 2));
  train_on(make_cuda_backend(), tiny("mixed", 4));
  train_on(make_cpu_backend(1), tiny("mixed", 6));
  expect_near("mixed", "cpu");
}

TEST_P(CudaTraining, GeneratesWhatTheCpuDoes) {
  train_on(make_cpu_backend(1), tiny("cpu", 2));
  const std::vector<std::int32_t> prompt{1, 5, 9};
  const auto text = [&](std::unique_ptr<Backend> backend, bool use_cache, double temperature) {
    InferenceModel model(checkpoint("cpu", 2) / "model", mesh(), 32, std::move(backend), std::nullopt, GetParam());
    return generate(model, prompt, {.max_tokens = 12, .temperature = temperature, .seed = 3, .use_cache = use_cache},
                    {});
  };
  cuda_on_host::set_late(true);
  const auto greedy = text(make_cpu_backend(1), true, 0);
  for (const bool use_cache : {true, false}) EXPECT_EQ(text(make_cuda_backend(), use_cache, 0), greedy);
  EXPECT_EQ(text(make_cuda_backend(), true, 1), text(make_cuda_backend(), true, 1));
}

INSTANTIATE_TEST_SUITE_P(Precisions, CudaTraining, testing::Values(PrecisionChoice::fp32, PrecisionChoice::bf16),
                         [](const auto& info) { return info.param == PrecisionChoice::fp32 ? "fp32" : "bf16"; });

}  // namespace
}  // namespace smoe
