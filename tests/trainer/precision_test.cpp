// bf16 runs: what is rounded in files and in memory has its masters beside it, so that resuming, another precision and
// another type of the exported weights lose no bit.
#include <map>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "kernels/bf16.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

using Numbers = std::map<std::string, std::vector<float>>;

Numbers numbers_in(const std::filesystem::path& directory, const std::string& prefix) {
  const TensorDirectory files(directory);
  Numbers found;
  for (const std::string& name : files.names()) {
    if (!name.starts_with(prefix)) continue;
    std::size_t elements = 1;
    for (const std::int64_t dim : files.info(name).shape) elements *= static_cast<std::size_t>(dim);
    auto& numbers = found[name.substr(prefix.size())];
    numbers.resize(elements);
    files.read_f32(name, numbers.data(), 0, static_cast<std::int64_t>(elements));
  }
  return found;
}

Numbers rounded_to_halves(Numbers numbers) {
  for (auto& [name, values] : numbers)
    for (float& x : values) x = widened(rounded(x));
  return numbers;
}

class PrecisionRuns : public TrainingTest {
 protected:
  TrainerConfig in(PrecisionChoice precision, const std::string& output,
                   ExportType exported = ExportType::of_run) const {
    TrainerConfig c = config(output);
    c.train.precision = precision;
    c.checkpoint.export_dtype = exported;
    return c;
  }
  Numbers weights(const std::string& output, std::int64_t step) const {
    return numbers_in(checkpoint(output, step) / "model", "");
  }
  Numbers optimizer(const std::string& output, std::int64_t step, const std::string& prefix) const {
    return numbers_in(checkpoint(output, step) / "optimizer", prefix);
  }
  Numbers masters(const std::string& output, std::int64_t step) const { return optimizer(output, step, "master."); }
  std::string dtype(const std::string& output, std::int64_t step) const {
    return read_json_file(checkpoint(output, step) / "model" / "config.json").at("torch_dtype");
  }
  // From step 10 of `from` on, one step in another precision that moves no weight.
  void change(const std::string& from, PrecisionChoice precision, const std::string& output) const {
    TrainerConfig c = in(precision, output);
    c.checkpoint.resume = checkpoint(from, 10).string();
    c.train.steps = 11;
    c.optimizer.learning_rate = 0;
    c.optimizer.max_grad_norm = 1e-30;  // and whose gradient, which differs by rounding, is nothing beside the moments
    ASSERT_EQ(train(c), 0);
  }
};

TEST_F(PrecisionRuns, Bf16LearnsAsFp32Does) {
  ASSERT_EQ(train(in(PrecisionChoice::fp32, "whole")), 0);
  ASSERT_EQ(train(in(PrecisionChoice::bf16, "half")), 0);
  const auto whole = metrics("whole").steps, half = metrics("half").steps;
  ASSERT_EQ(whole.size(), half.size());
  EXPECT_LT(half.back().lm_loss, half.front().lm_loss);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_NEAR(half[i].lm_loss, whole[i].lm_loss, 0.01 * whole[i].lm_loss) << "step " << i + 1;
    EXPECT_NE(half[i].lm_loss, whole[i].lm_loss) << "nothing was rounded";
  }
}

TEST_F(PrecisionRuns, ModelHoldsTheMastersRounded) {
  ASSERT_EQ(train(in(PrecisionChoice::bf16, "half")), 0);
  EXPECT_EQ(dtype("half", 20), "bfloat16");
  const Numbers kept = masters("half", 20);
  EXPECT_EQ(weights("half", 20), rounded_to_halves(kept));
  EXPECT_NE(weights("half", 20), kept) << "nothing was rounded";
  EXPECT_EQ(TensorDirectory(checkpoint("half", 20) / "model").info("lm_head.weight").type, TensorType::bf16);
  EXPECT_EQ(metrics("half").evals.back().step, 20);
}

TEST_F(PrecisionRuns, Bf16ResumesToTheBitWhateverIsExported) {
  ASSERT_EQ(train(in(PrecisionChoice::bf16, "whole")), 0);
  for (const ExportType exported : {ExportType::of_run, ExportType::fp32, ExportType::bf16}) {
    const std::string output = "again-" + std::to_string(static_cast<int>(exported));
    TrainerConfig c = in(PrecisionChoice::bf16, output, exported);
    ASSERT_EQ(train(c), 0);
    TrainerConfig second = in(PrecisionChoice::bf16, output + "-resumed");
    second.checkpoint.resume = checkpoint(output, 10).string();
    ASSERT_EQ(train(second), 0);
    EXPECT_EQ(state_hash(output + "-resumed", 20), state_hash("whole", 20));
    if (exported != ExportType::fp32) continue;
    EXPECT_EQ(weights(output, 20), masters("whole", 20));
    EXPECT_EQ(dtype(output, 20), "float32");
    EXPECT_TRUE(masters(output, 20).empty());
  }
}

TEST_F(PrecisionRuns, AnFp32RunThatExportsBf16LosesNothing) {
  ASSERT_EQ(train(in(PrecisionChoice::fp32, "whole")), 0);
  TrainerConfig c = in(PrecisionChoice::fp32, "exported", ExportType::bf16);
  c.train.freeze = {};
  ASSERT_EQ(train(c), 0);
  EXPECT_EQ(masters("exported", 20), weights("whole", 20));
  EXPECT_EQ(weights("exported", 20), rounded_to_halves(weights("whole", 20)));
  EXPECT_TRUE(masters("whole", 20).empty());
  TrainerConfig resumed = in(PrecisionChoice::fp32, "resumed");
  resumed.checkpoint.resume = checkpoint("exported", 10).string();
  ASSERT_EQ(train(resumed), 0);
  EXPECT_EQ(state_hash("resumed", 20), state_hash("whole", 20));
}

TEST_F(PrecisionRuns, AnotherPrecisionGoesOnFromTheSameNumbers) {
  ASSERT_EQ(train(in(PrecisionChoice::fp32, "whole")), 0);
  ASSERT_EQ(train(in(PrecisionChoice::bf16, "half")), 0);
  change("whole", PrecisionChoice::bf16, "to-half");
  EXPECT_EQ(masters("to-half", 11), weights("whole", 10));
  EXPECT_EQ(weights("to-half", 11), rounded_to_halves(weights("whole", 10)));
  change("half", PrecisionChoice::fp32, "to-whole");
  EXPECT_EQ(weights("to-whole", 11), masters("half", 10));
  EXPECT_TRUE(masters("to-whole", 11).empty());
  change("half", PrecisionChoice::bf16, "same");
  EXPECT_EQ(masters("same", 11), masters("half", 10));
  for (const std::string prefix : {"exp_avg.", "exp_avg_sq."}) {  // the moments too
    const Numbers stayed = optimizer("same", 11, prefix), changed = optimizer("to-whole", 11, prefix);
    for (const auto& [name, values] : stayed)
      for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_NEAR(values[i], changed.at(name)[i], 1e-25) << prefix << name;
    EXPECT_NE(stayed, optimizer("half", 10, prefix)) << "no step was made";
  }
}

// What is frozen in bf16 is no more than its values, and has no master.
TEST_F(PrecisionRuns, TheFrozenHaveNoMasters) {
  TrainerConfig c = in(PrecisionChoice::bf16, "frozen");
  c.train.freeze = {"*.experts.*"};
  ASSERT_EQ(train(c), 0);
  const Numbers kept = masters("frozen", 20), all = weights("frozen", 20);
  EXPECT_LT(kept.size(), all.size());
  for (const auto& [name, values] : all)
    EXPECT_EQ(kept.contains(name), name.find(".experts.") == std::string::npos) << name;
  TrainerConfig resumed = c;
  resumed.train.output_dir = (root() / "resumed").string();
  resumed.checkpoint.resume = checkpoint("frozen", 10).string();
  ASSERT_EQ(train(resumed), 0);
  EXPECT_EQ(state_hash("resumed", 20), state_hash("frozen", 20));
}

}  // namespace
}  // namespace smoe
