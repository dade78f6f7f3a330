// Whole runs of two ranks, each on an emulated device of its own: over NCCL, whose stub adds in rank order, they have the bits of
// those over MPI. Weights are evaluated and saved while others would still be on their way; and one rank fails alone.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/cuda_device.h"
#include "parallel/comm/agreement.h"
#include "tests/ranks/test_session.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/record/metrics.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

class GpuRuns : public ::testing::TestWithParam<PrecisionChoice> {
 protected:
  GpuRuns() {
    if (test_session().rank() == 0) test::write_tiny_sources(own_.path());
    root_ = broadcast_text(world(), own_.path().string(), 0, "test.root");
  }
  ~GpuRuns() override { world().barrier("test.over"); }  // before the root removes the directory

  Communicator& world() const { return everyone_.group(Axis::world); }
  int ranks() const { return test_session().size(); }

  TrainerConfig config(const std::string& output) const {
    TrainerConfig c = test::tiny_config(root_, output);
    c.train.device = DeviceChoice::cuda;
    c.train.precision = GetParam();
    c.train.steps = 4;
    c.train.global_batch_size = 4;
    c.train.micro_batch_size = 1;
    c.checkpoint.interval = c.eval.interval = 2;
    c.log.dump_steps = {1};
    return c;
  }
  Mesh mesh_of(const Layout& layout, Transport transport) const {
    return Mesh::over(test_session(), layout, {Device::cuda, transport});
  }
  void train(const std::string& output, const Layout& layout, Transport transport) {
    const Mesh mesh = mesh_of(layout, transport);
    EXPECT_EQ(mesh.transport().starts_with("NCCL "), transport == Transport::nccl) << mesh.transport();
    EXPECT_EQ(Trainer(assemble(config(output), mesh, make_cuda_backend())).run().end, RunEnd::complete);
    world().barrier("test.trained");
  }
  std::string state_hash(const std::string& output, std::int64_t step) const {
    const fs::path checkpoint = root_ / output / "checkpoints" / checkpoint_name(step);
    return sha256_file(checkpoint / "model" / "model.safetensors") +
           sha256_file(checkpoint / "optimizer" / "model.safetensors");
  }

  fs::path root_;

 private:
  test::ScratchDir own_;
  Mesh everyone_ = Mesh::over(test_session(), {.ranks = test_session().size()});
};

TEST_P(GpuRuns, HaveTheBitsOfMpiOverNccl) {
  for (const Layout& layout :
       {Layout{.ranks = ranks()}, Layout{.ranks = ranks(), .ep = 2}, Layout{.ranks = ranks(), .tp = 2}}) {
    SCOPED_TRACE(layout.to_string());
    const std::string name = "tp" + std::to_string(layout.tp) + "ep" + std::to_string(layout.ep);
    train(name + "-mpi", layout, Transport::mpi);
    train(name + "-nccl", layout, Transport::nccl);
    if (test_session().rank() != 0) continue;
    const MetricsLog mpi = read_metrics(root_ / (name + "-mpi") / "metrics.jsonl"),
                     nccl = read_metrics(root_ / (name + "-nccl") / "metrics.jsonl");
    ASSERT_EQ(mpi.steps.size(), 4u);
    ASSERT_EQ(nccl.steps.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(mpi.steps[i].lm_loss, nccl.steps[i].lm_loss) << i;
      EXPECT_EQ(mpi.steps[i].grad_norm, nccl.steps[i].grad_norm) << i;
    }
    ASSERT_EQ(mpi.evals.size(), nccl.evals.size());
    for (std::size_t i = 0; i < mpi.evals.size(); ++i) EXPECT_EQ(mpi.evals[i].loss, nccl.evals[i].loss) << i;
    for (const std::int64_t step : {2, 4}) EXPECT_EQ(state_hash(name + "-mpi", step), state_hash(name + "-nccl", step));
  }
}

// What the root alone finds, that it cannot write there, is told by all at once, whatever they were about to exchange.
TEST_P(GpuRuns, AFailureOfOneRankAtTheBeginningIsEveryRanks) {
  const Mesh mesh = mesh_of({.ranks = ranks()}, Transport::nccl);
  if (test_session().rank() == 0) std::ofstream(root_ / "taken") << "a file";
  world().barrier("test.taken");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(assemble(config("taken"), mesh, make_cuda_backend()), SharedFailure);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20);
  world().barrier("test.told");
}

INSTANTIATE_TEST_SUITE_P(Precisions, GpuRuns, testing::Values(PrecisionChoice::fp32, PrecisionChoice::bf16),
                         [](const auto& info) { return info.param == PrecisionChoice::fp32 ? "fp32" : "bf16"; });

}  // namespace
}  // namespace smoe
