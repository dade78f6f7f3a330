// Runs of which a part is frozen: what they save, what resumes from it, and what they say.
#include <array>
#include <fstream>
#include <iterator>
#include <set>

#include "data/files/safetensors.h"
#include "data/files/tensor_directory.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

class FrozenRun : public TrainingTest {
 protected:
  TrainerConfig frozen_config(const std::string& output, std::int64_t steps,
                              const std::vector<std::string>& freeze) const {
    TrainerConfig c = config(output);
    c.train.steps = steps;
    c.train.freeze = freeze;
    c.checkpoint.interval = 5;
    c.checkpoint.keep = 10;
    c.schedule.type = ScheduleType::constant;  // the same rates whatever the number of steps
    c.data.eval.clear();
    return c;
  }
  std::vector<std::string> moments(const std::string& output, std::int64_t step) const {
    return TensorDirectory(checkpoint(output, step) / "optimizer").names();
  }
  std::vector<float> weight(const std::string& output, std::int64_t step, const std::string& name) const {
    const TensorDirectory directory(checkpoint(output, step) / "model");
    std::vector<float> values(static_cast<std::size_t>(directory.info(name).elements()));
    directory.read_f32(name, values.data(), 0, static_cast<std::int64_t>(values.size()));
    return values;
  }
  std::string log(const std::string& output) const {
    std::ifstream file(root() / output / "train.log");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
};

const std::string gate = "model.layers.1.block_sparse_moe.gate.weight",
                  expert = "model.layers.0.block_sparse_moe.experts.2.w1.weight";

TEST_F(FrozenRun, SavesEveryWeightAndTheMomentsOfWhatIsTrained) {
  auto c = frozen_config("run", 5, {"*.experts.*"});
  c.router.frozen = true;
  c.checkpoint.interval = 1;
  ASSERT_EQ(train(c), 0);
  EXPECT_EQ(TensorDirectory(checkpoint("run", 5) / "model").names().size(), 2 * (6 + 1 + 4 * 3) + 3u);
  const auto names = moments("run", 5);
  EXPECT_EQ(names.size(), 2 * (2 * 6 + 3u));
  for (const std::string& name : names) EXPECT_EQ(name.find("block_sparse_moe"), std::string::npos) << name;
  for (const std::string& name : {gate, expert}) EXPECT_EQ(weight("run", 1, name), weight("run", 5, name)) << name;
  EXPECT_NE(weight("run", 1, "lm_head.weight"), weight("run", 5, "lm_head.weight"));

  const ParameterCounts counts = count_parameters(c.model);
  EXPECT_TRUE(mentions(log("run"), {(std::to_string(counts.total - counts.experts - counts.routers) + " of " +
                                     std::to_string(counts.total) +
                                     " parameters are trained; frozen: *.experts.*, *.block_sparse_moe.gate.weight")
                                        .c_str()}));
}

TEST_F(FrozenRun, ResumedIsTheUninterruptedOneToTheBit) {
  const std::vector<std::string> freeze = {"*.self_attn.*", "*.w2.*"};
  ASSERT_EQ(train(frozen_config("whole", 10, freeze)), 0);
  ASSERT_EQ(train(frozen_config("halves", 5, freeze)), 0);
  ASSERT_EQ(train(frozen_config("halves", 10, freeze)), 0);
  EXPECT_EQ(state_hash("whole", 10), state_hash("halves", 10));
  EXPECT_EQ(metrics("whole").steps.back().grad_norm, metrics("halves").steps.back().grad_norm);
}

TEST_F(FrozenRun, MayFreezeMoreThanItsCheckpointDid) {
  ASSERT_EQ(train(frozen_config("run", 5, {})), 0);
  ASSERT_EQ(train(frozen_config("run", 10, {"*.gate.weight"})), 0);
  EXPECT_TRUE(mentions(log("run"),
                       {"2 parameter(s) that the checkpoint trained are frozen here: their moments are left behind"}));
  EXPECT_EQ(weight("run", 5, gate), weight("run", 10, gate));
  EXPECT_NE(weight("run", 5, expert), weight("run", 10, expert));
  EXPECT_EQ(moments("run", 5).size() - moments("run", 10).size(), 2 * 2u);
}

TEST_F(FrozenRun, MayNotTrainWhatItsCheckpointHasNoMomentsOf) {
  ASSERT_EQ(train(frozen_config("run", 5, {"*.gate.weight", "*.experts.*"})), 0);
  const std::string before = state_hash("run", 5);
  EXPECT_TRUE(mentions(message_of([&] { train(frozen_config("run", 10, {"*.gate.weight"})); }),
                       {"step-000005: 24 parameter(s) that are trained now were frozen there and have no moments, "
                        "model.layers.0.block_sparse_moe.experts.0.w1.weight the first",
                        "model.from"}));
  EXPECT_EQ(state_hash("run", 5), before);
  // Its weights may begin a run of their own.
  auto other = frozen_config("other", 5, {});
  other.model.from = (root() / "run").string();
  ASSERT_EQ(train(other), 0);
  EXPECT_NE(weight("run", 5, expert), weight("other", 5, expert));
}

TEST_F(FrozenRun, RefusesWhatCannotBeMeantBeforeAnythingIsWritten) {
  for (const auto& freeze : std::vector<std::vector<std::string>>{{"*.mlp.*"}, {"*.w1.weight"}, {"*"}}) {
    EXPECT_TRUE(mentions(message_of([&] { train(frozen_config("run", 5, freeze)); }), {"train.freeze"}));
    EXPECT_FALSE(std::filesystem::exists(root() / "run"));
  }
}

TEST_F(FrozenRun, DumpsGradientsOfWhatIsTrained) {
  auto c = frozen_config("run", 2, {"*.experts.*"});
  c.log.dump_steps = {2};
  ASSERT_EQ(train(c), 0);
  const SafetensorsReader dump(root() / "run" / "dumps" / "step-000002.safetensors");
  std::set<std::string> names;
  for (const TensorInfo& tensor : dump.tensors()) names.insert(tensor.name);
  EXPECT_TRUE(names.contains("grad." + gate));
  EXPECT_TRUE(names.contains("param." + expert));
  EXPECT_FALSE(names.contains("grad." + expert));
}

// What the ranks hold is not what the model's declaration says, in either direction: told before a file is begun.
TEST_F(FrozenRun, ACheckpointThatWouldNotBeWholeIsNotBegun) {
  const ModelConfig model = config("run").model;
  HfConfig hf;
  hf.model = model;
  TrainingState state;
  state.step = 1;
  const auto backend = make_cpu_backend(1);
  const std::vector<TokenizerFile> no_files;
  const std::array<std::vector<std::string>, 2> freezes = {std::vector<std::string>{}, {"*.experts.*"}};
  for (const auto& held : freezes)
    for (const auto& said : freezes) {
      Arena arena(*backend);
      Mixtral mixtral(model, mesh(), held);
      mixtral.allocate(*backend, arena, 16, true);
      AdamW optimizer(*backend, arena, mixtral.parameters(), mesh(), {});
      SelectionBias bias(*backend, arena, mixtral);
      const ParameterSet whole = declare_parameters(model, mesh(), said);
      const CheckpointContent content{*backend, whole, mixtral.parameters(), optimizer, bias, mesh(), hf, no_files};
      const auto directory = root() / "checkpoints";
      const auto save = [&] { save_checkpoint(directory, content, state, 2); };
      if (held == said) {
        EXPECT_NO_THROW(save());
        std::filesystem::remove_all(directory);
      } else {
        try {
          save();
          ADD_FAILURE() << "nothing was thrown";
        } catch (const std::exception& error) {
          EXPECT_TRUE(mentions(error.what(), {"optimizer/exp_avg.*", "expected"}));
        }
        EXPECT_FALSE(std::filesystem::exists(directory));
      }
    }
}

}  // namespace
}  // namespace smoe
