// A whole run on memory that the host cannot touch, and whose numbers come to the host late: what works here reads no pointer
// of a tensor outside kernels/, and waits for what it reads.
#include "tests/support/sealed_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "kernels/host_view.h"
#include "tests/support/late_copies.h"
#include "tests/trainer/whole_run.h"
#include "trainer/analysis/analysis.h"
#include "trainer/analysis/analysis_json.h"
#include "trainer/generate.h"
#include "trainer/inference.h"

namespace smoe {
namespace {
using test::LateCopies;
using test::SealedMemory;

std::unique_ptr<Backend> make_device(int threads) {
  return std::make_unique<LateCopies>(std::make_unique<SealedMemory>(threads));
}

using SealedMemoryRuns = WholeRunTest;

// Forward, backward, update, evaluation, checkpoints written and read.
TEST_F(SealedMemoryRuns, TrainEvaluateSaveAndResumeWithTheBitsOfTheCpu) {
  for (const auto& [precision, name] :
       {std::pair(PrecisionChoice::fp32, "fp32"), std::pair(PrecisionChoice::bf16, "bf16")}) {
    const std::string cpu = std::string("cpu-") + name, sealed = std::string("sealed-") + name;
    train_on(make_cpu_backend(2), tiny(cpu, 4, precision));
    train_on(make_device(2), tiny(sealed, 2, precision));
    train_on(make_device(2), tiny(sealed, 4, precision));  // goes on from the checkpoint
    EXPECT_EQ(results(cpu), results(sealed)) << name;
  }
}

TEST_F(SealedMemoryRuns, RecomputeAndBalanceBySequence) {
  for (const AuxLossScope scope : {AuxLossScope::sequence, AuxLossScope::global_batch}) {
    const auto c = [&](const std::string& output) {
      TrainerConfig c = tiny(output, 2, PrecisionChoice::fp32);
      c.router.aux_loss_scope = scope;
      c.train.recompute = Recompute::layer;
      c.checkpoint.resume = "never";
      return c;
    };
    train_on(make_cpu_backend(1), c("cpu"));
    train_on(make_device(1), c("sealed"));
    EXPECT_EQ(results("cpu"), results("sealed"));
  }
}

TEST_F(SealedMemoryRuns, GenerateWritesWhatTheCpuWrites) {
  train_on(make_cpu_backend(2), tiny("cpu", 2, PrecisionChoice::fp32));
  const std::vector<std::int32_t> prompt{1, 5, 9};
  const auto text = [&](std::unique_ptr<Backend> backend, PrecisionChoice precision, bool use_cache) {
    InferenceModel model(checkpoint("cpu", 2) / "model", mesh(), 32, std::move(backend), std::nullopt, precision);
    return generate(model, prompt, {.max_tokens = 12, .seed = 3, .use_cache = use_cache}, {});
  };
  for (const PrecisionChoice precision : {PrecisionChoice::fp32, PrecisionChoice::bf16})
    for (const bool use_cache : {true, false})
      EXPECT_EQ(text(make_device(2), precision, use_cache), text(make_cpu_backend(2), precision, use_cache));
}

TEST_F(SealedMemoryRuns, AnAnalysisIsThatOfTheCpu) {
  train_on(make_cpu_backend(2), tiny("cpu", 2, PrecisionChoice::fp32));
  const std::vector<DataSource> wanted{{.path = (root() / "a").string()}, {.path = (root() / "b").string()}};
  const auto analysis = [&](std::unique_ptr<Backend> backend, PrecisionChoice precision) {
    InferenceModel model(checkpoint("cpu", 2) / "model", mesh(), 16, std::move(backend), std::nullopt, precision);
    const OpenedSources opened =
        open_usable_sources(wanted, 16, true, {.vocab_size = model.shape().vocab_size, .model_directory = {}});
    AnalysisOptions options;
    options.tokens = 64;
    options.permutation.permutations = 3;
    options.output_tokens = 8;
    return dump_json(analysis_json(analyse(model, "cpu", opened.sources, options), TokenTexts(nullptr)));
  };
  for (const PrecisionChoice precision : {PrecisionChoice::fp32, PrecisionChoice::bf16})
    EXPECT_EQ(analysis(make_device(2), precision), analysis(make_cpu_backend(2), precision));
}

using SealedMemoryDeathTest = SealedMemoryRuns;

TEST_F(SealedMemoryDeathTest, AHostThatReadsOrWritesATensorDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  SealedMemory backend(1);
  Arena arena(backend);
  const Tensor x = arena.take({4});
  backend.fill(x, 2.0f);
  EXPECT_EQ(numbers_of(backend, x), std::vector<float>(4, 2.0f));
  const volatile float* host_read = x.f32();
  EXPECT_DEATH(EXPECT_EQ(*host_read, 2.0f), "");
  EXPECT_DEATH(x.f32()[0] = 1, "");
}

}  // namespace
}  // namespace smoe
