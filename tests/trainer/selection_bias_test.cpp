// Runs whose routers choose by a selection bias: resumed to the bit, exported, read back with the same choices.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/weights.h"
#include "trainer/evaluate.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

class BiasedRun : public TrainingTest {
 protected:
  TrainerConfig biased(const std::string& output, double rate = 0.02) const {
    TrainerConfig c = config(output);
    c.router.aux_loss_coef = 0;
    c.router.bias_update_rate = rate;
    return c;
  }
  fs::path model_of(const std::string& output, std::int64_t step) const { return checkpoint(output, step) / "model"; }
  std::vector<float> bias_of(const fs::path& model) const { return load_selection_bias(model, config("").model); }
  // As if it had been stopped after step 10.
  void forget_after_ten(const std::string& output) const {
    fs::remove_all(checkpoint(output, 20));
    std::ofstream(root() / output / "checkpoints" / "latest") << checkpoint_name(10) << "\n";
  }
  // The last evaluation of a run, by its model read back from `model`.
  EvalMetrics evaluated(const fs::path& model) const {
    InferenceModel read(model, mesh(), 64, make_cpu_backend(2));
    return evaluate(read.model(), read.fresh_context(), Dataset((root() / "held-out").string(), 16, true),
                    {.batches = 2, .sequences = 4, .name = "alpha", .on_progress = {}}, 20);
  }
  // `model` with the tensors that `change` has made of its own, in files of ours.
  template <class Change>
  fs::path changed(const fs::path& model, const std::string& name, Change&& change) const {
    const TensorDirectory files(model);
    std::map<std::string, std::vector<float>> values;
    for (const std::string& tensor : files.names()) {
      values[tensor].resize(static_cast<std::size_t>(files.info(tensor).elements()));
      files.read_f32(tensor, values[tensor].data(), 0, files.info(tensor).elements());
    }
    std::map<std::string, std::vector<std::int64_t>> shapes;
    for (const std::string& tensor : files.names()) shapes[tensor] = files.info(tensor).shape;
    change(values, shapes);
    const fs::path directory = root() / name;
    fs::create_directory(directory);
    fs::copy_file(model / "config.json", directory / "config.json");
    std::vector<TensorSpec> specs;
    for (const auto& [tensor, numbers] : values) specs.push_back({tensor, TensorType::f32, shapes.at(tensor)});
    auto writer = TensorDirectoryWriter::create(directory, specs);
    for (const auto& [tensor, numbers] : values) writer.write_f32(tensor, 0, numbers);
    writer.finish();
    return directory;
  }
};

TEST_F(BiasedRun, IsExportedAndReadBackWithTheSameChoices) {
  ASSERT_EQ(train(biased("run")), 0);
  const auto bias = bias_of(model_of("run", 20));
  ASSERT_EQ(bias.size(), 8u);
  for (std::size_t l = 0; l < 2; ++l) {
    double sum = 0, most = 0;
    for (std::size_t e = 0; e < 4; ++e) {
      sum += static_cast<double>(bias[4 * l + e]);
      most = std::max(most, std::abs(static_cast<double>(bias[4 * l + e])));
    }
    EXPECT_NEAR(sum, 0, 1e-6);
    EXPECT_GT(most, 0.01);
    EXPECT_LT(most, 20 * 0.02 * 2);
  }
  EXPECT_EQ(TensorDirectory(model_of("run", 20)).info(selection_bias_name(1)).shape, std::vector<std::int64_t>{4});

  const EvalMetrics found = evaluated(model_of("run", 20)), row = metrics("run").evals.back();
  EXPECT_EQ(found, row) << "the same losses and loads to the bit";
  const fs::path without = changed(model_of("run", 20), "without", [](auto& values, auto&) {
    values.erase(selection_bias_name(0));
    values.erase(selection_bias_name(1));
  });
  EXPECT_NE(evaluated(without).loss, row.loss) << "the bias decides nothing";
  const fs::path renamed = changed(model_of("run", 20), "renamed", [](auto& values, auto& shapes) {
    for (int l = 0; l < 2; ++l) {
      const std::string name = fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", l);
      values[name] = values.at(selection_bias_name(l));
      shapes[name] = {4};
      values.erase(selection_bias_name(l));
    }
  });
  EXPECT_EQ(evaluated(renamed), row);

  const std::string log = log_of("run");
  EXPECT_TRUE(mentions(log, {"e_score_correction_bias", "transformers' Mixtral has no such tensor", "ignores it"}));
  EXPECT_EQ(log.find("e_score"), log.rfind("e_score")) << "said once, at the first of two saves";
}

TEST_F(BiasedRun, KeepsF32WhereTheWeightsAreRounded) {
  auto c = biased("run");
  c.checkpoint.export_dtype = ExportType::bf16;
  ASSERT_EQ(train(c), 0);
  const TensorDirectory files(model_of("run", 20));
  EXPECT_EQ(files.info(selection_bias_name(0)).type, TensorType::f32);
  EXPECT_EQ(files.info("model.layers.0.block_sparse_moe.gate.weight").type, TensorType::bf16);
  ASSERT_EQ(train(biased("exact")), 0);
  EXPECT_EQ(bias_of(model_of("run", 20)), bias_of(model_of("exact", 20)));
}

TEST_F(BiasedRun, TwentyStepsEqualTenAndTen) {
  ASSERT_EQ(train(biased("whole")), 0);
  fs::copy(root() / "whole", root() / "halves", fs::copy_options::recursive);
  forget_after_ten("halves");
  ASSERT_EQ(train(biased("halves")), 0);
  EXPECT_EQ(state_hash("whole", 20), state_hash("halves", 20));
  EXPECT_EQ(log_of("halves").find("begins at 0"), std::string::npos);
}

TEST_F(BiasedRun, BeginsAtZeroFromACheckpointThatHasNone) {
  auto c = biased("run", 0);
  ASSERT_EQ(train(c), 0);
  EXPECT_TRUE(bias_of(model_of("run", 20)).empty());
  forget_after_ten("run");
  ASSERT_EQ(train(biased("run")), 0);
  EXPECT_EQ(bias_of(model_of("run", 20)).size(), 8u);
  EXPECT_TRUE(
      mentions(log_of("run"), {"the checkpoint has no selection bias", "begins at 0", "router.bias_update_rate"}));
}

TEST_F(BiasedRun, StaysAsItWasFoundWithoutARate) {
  ASSERT_EQ(train(biased("run")), 0);
  const auto at_ten = bias_of(model_of("run", 10));
  forget_after_ten("run");
  ASSERT_EQ(train(biased("run", 0)), 0);
  EXPECT_EQ(bias_of(model_of("run", 20)), at_ten);
  EXPECT_TRUE(
      mentions(log_of("run"), {"the checkpoint has a selection bias", "as it stands", "router.bias_update_rate"}));

  auto other = biased("other", 0);
  other.model = ModelConfig{};
  other.model.from = model_of("run", 20).string();
  other.train.steps = 2;
  ASSERT_EQ(train(other), 0);
  EXPECT_EQ(bias_of(model_of("other", 2)), at_ten);
  EXPECT_TRUE(mentions(log_of("other"), {"model.from has a selection bias"}));
}

TEST_F(BiasedRun, ARefusedStepChangesNothing) {
  auto c = biased("run");
  c.train.steps = 1;
  ASSERT_EQ(train(c), 0);
  RunParts parts = assemble(
      [&] {
        auto more = c;
        more.train.steps = 2;
        return more;
      }(),
      mesh(), make_cpu_backend(1));
  const auto before = parts.training.selection_bias->values();
  TrainingStep& step = *parts.training.step;
  const std::vector<std::int32_t> ids(16, 5), starts(16, 0);
  std::vector<std::int32_t> four(64, 5), starts_of_four(64, 0);
  StepResult result = step.compute_gradients({4, 16, four, four, starts_of_four});
  result.finite = false;
  step.apply(result, 2, 1e-3);
  EXPECT_EQ(parts.training.selection_bias->values(), before);
  result = step.compute_gradients({4, 16, four, four, starts_of_four});
  step.apply(result, 2, 1e-3);
  EXPECT_NE(parts.training.selection_bias->values(), before);
}

TEST_F(BiasedRun, BadInputABiasThatIsNotWholeOrNotFiniteIsRefused) {
  ASSERT_EQ(train(biased("run")), 0);
  const fs::path model = model_of("run", 20);
  const auto refusal = [&](const fs::path& directory) { return message_of([&] { evaluated(directory); }); };
  EXPECT_TRUE(
      mentions(refusal(changed(model, "missing", [](auto& values, auto&) { values.erase(selection_bias_name(1)); })),
               {"model.layers.1.block_sparse_moe.gate.e_score_correction_bias: missing, expected [4]"}));
  EXPECT_TRUE(mentions(refusal(changed(model, "short",
                                       [](auto& values, auto& shapes) {
                                         values[selection_bias_name(0)].resize(3);
                                         shapes[selection_bias_name(0)] = {3};
                                       })),
                       {"model.layers.0.block_sparse_moe.gate.e_score_correction_bias: found [3], expected [4]"}));
  EXPECT_TRUE(mentions(refusal(changed(model, "nan",
                                       [](auto& values, auto&) {
                                         values[selection_bias_name(1)][2] = std::numeric_limits<float>::quiet_NaN();
                                       })),
                       {"layers.1.", "found nan for expert 2, expected a finite number"}));
}

}  // namespace
}  // namespace smoe
