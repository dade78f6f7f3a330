// Runs one after another in a process: each gives the bits of a process of its own, whatever came before it.
#include <spawn.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "tests/trainer/training_fixture.h"
#include "trainer/signals.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

class ConsecutiveRuns : public TrainingTest {
 protected:
  // Two runs over the same sources that share little else.
  TrainerConfig first(const std::string& output) const {
    TrainerConfig c = config(output);
    c.train.steps = 6;
    c.checkpoint.interval = c.eval.interval = 3;
    return c;
  }
  TrainerConfig second(const std::string& output) const {
    TrainerConfig c = first(output);
    c.train.seed = 2;
    c.data.sequence_length = 12;
    c.data.train[1].weight = 5;
    c.model.hidden_size = 48;
    c.optimizer.learning_rate = 3e-3;
    return c;
  }

  static TrainerConfig without_directory(TrainerConfig c) {
    c.train.output_dir.clear();
    return c;
  }

  RunParts assemble_after(const TrainerConfig& c, const std::shared_ptr<const Corpus>& earlier = nullptr) const {
    return assemble(c, mesh(), make_cpu_backend(1), earlier);
  }
  RunSummary run(const TrainerConfig& c) const { return Trainer(assemble_after(c)).run(); }

  // Runs the test RunOfAProcess, below, in a process of its own.
  void train_in_a_process(const std::string& which, const std::string& output) const {
    for (const auto& [name, value] :
         {std::pair("SMOE_TEST_ROOT", root().string()), {"SMOE_TEST_WHICH", which}, {"SMOE_TEST_OUTPUT", output}})
      ::setenv(name, value.c_str(), 1);
    const std::string self = fs::read_symlink("/proc/self/exe").string();
    std::string filter = "--gtest_filter=ConsecutiveRuns.RunOfAProcess", name = self;
    char* const arguments[] = {name.data(), filter.data(), nullptr};
    pid_t process = 0;
    ASSERT_EQ(::posix_spawn(&process, self.c_str(), nullptr, nullptr, arguments, environ), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(process, &status, 0), process);
    ASSERT_EQ(status, 0);
    ASSERT_TRUE(fs::exists(root() / output / "checkpoints" / "latest"));
  }
};

// The run of a process that a test below has started: there, and only there, it is the one more test.
class RunOfAProcess : public ConsecutiveRuns {
  void TestBody() override {
    const fs::path where = std::getenv("SMOE_TEST_ROOT");
    const std::string output = std::getenv("SMOE_TEST_OUTPUT");
    TrainerConfig c = std::string(std::getenv("SMOE_TEST_WHICH")) == "first" ? first(output) : second(output);
    for (auto* sources : {&c.data.train, &c.data.eval})
      for (DataSource& source : *sources) source.path = where / fs::path(source.path).filename();
    c.train.output_dir = where / output;
    EXPECT_EQ(run(c).end, RunEnd::complete);
  }
};
[[maybe_unused]] const auto* const run_of_a_process =
    std::getenv("SMOE_TEST_ROOT")
        ? ::testing::RegisterTest("ConsecutiveRuns", "RunOfAProcess", nullptr, nullptr, __FILE__, __LINE__,
                                  []() -> ConsecutiveRuns* { return new RunOfAProcess; })
        : nullptr;

TEST_F(ConsecutiveRuns, GiveTheBitsOfTwoProcesses) {
  train_in_a_process("first", "first-alone");
  train_in_a_process("second", "second-alone");
  Trainer one(assemble_after(first("first")));
  EXPECT_EQ(one.run().end, RunEnd::complete);
  Trainer two(assemble_after(second("second"), one.parts().corpus));  // while the first is still there
  EXPECT_EQ(two.run().end, RunEnd::complete);
  EXPECT_GT(results("first").size(), 20u);
  EXPECT_EQ(results("first"), results("first-alone"));
  EXPECT_EQ(results("second"), results("second-alone"));
}

TEST_F(ConsecutiveRuns, AfterOneThatFailedAndOneThatWasStopped) {
  ASSERT_EQ(run(first("alone")).end, RunEnd::complete);
  std::shared_ptr<const Corpus> corpus;
  {
    TrainerConfig c = second("failed");
    c.train.max_skipped_steps = 2;
    Trainer failing(assemble_after(c));
    failing.model().parameters().find("model.norm.weight")->value.f32()[0] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(failing.run(), std::runtime_error);
    corpus = failing.parts().corpus;
  }
  {
    Trainer stopped(assemble_after(second("stopped"), corpus));
    ::raise(SIGTERM);
    const RunSummary summary = stopped.run();
    EXPECT_EQ(summary.end, RunEnd::stopped);
    EXPECT_EQ(summary.steps, 0);
    EXPECT_FALSE(summary.last);
  }
  EXPECT_EQ(Trainer(assemble_after(first("after"), corpus)).run().end, RunEnd::complete)
      << "the signal was the run's before";
  EXPECT_EQ(results("after"), results("alone"));
}

TEST_F(ConsecutiveRuns, ASignalStopsAllOfThemWhereTheProcessHoldsTheHandlers) {
  const StopSignals process;
  ::raise(SIGUSR1);
  EXPECT_EQ(run(first("one")).end, RunEnd::stopped);
  EXPECT_EQ(run(first("two")).end, RunEnd::stopped);
}

TEST_F(ConsecutiveRuns, HashTheirShardsOnceAndAgainWhereOneHasChanged) {
  const auto hashed = [](const RunParts& parts) { return parts.corpus->shards->files_hashed(); };
  TrainerConfig c = without_directory(first("run"));
  const RunParts one = assemble_after(c);
  EXPECT_EQ(hashed(one), 3);
  const RunParts two = assemble_after(without_directory(second("run")), one.corpus);
  EXPECT_EQ(hashed(two), 3);
  c.data.eval.push_back(c.data.train[0]);
  const RunParts three = assemble_after(c, two.corpus);
  EXPECT_EQ(hashed(three), 3);
  EXPECT_EQ(hashed(assemble_after(c)), 3)
      << "without an earlier one, each again, and once though it stands in two lists";
  {
    std::fstream shard(root() / "a" / "shard-00000.h5", std::ios::in | std::ios::out | std::ios::binary);
    shard.seekp(-1, std::ios::end);
    shard.put('x');
  }
  EXPECT_TRUE(
      mentions(message_of([&] { assemble_after(c, three.corpus); }), {"shard-00000.h5", "damaged or was replaced"}));
}

TEST_F(ConsecutiveRuns, ARunWithoutADirectoryGivesTheNumbersOfOneWithAndWritesNothing) {
  const RunSummary written = run(first("run"));
  TrainerConfig c = without_directory(first("run"));
  c.log.dump_steps = {1};
  const auto entries = [](const fs::path& directory) {
    return std::distance(fs::recursive_directory_iterator(directory), fs::recursive_directory_iterator());
  };
  const auto here = std::distance(fs::directory_iterator(fs::current_path()), fs::directory_iterator()),
             below = entries(root());
  const RunSummary summary = run(c);
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::current_path()), fs::directory_iterator()), here);
  EXPECT_EQ(entries(root()), below);

  EXPECT_EQ(summary.end, RunEnd::complete);
  EXPECT_EQ(summary.steps, 6);
  EXPECT_EQ(summary.state, written.state);
  EXPECT_EQ(summary.state.tokens, 6 * 8 * 16);
  ASSERT_TRUE(summary.last);
  EXPECT_EQ(summary.last->lm_loss, written.last->lm_loss);
  EXPECT_EQ(summary.last->expert_load, written.last->expert_load);
  EXPECT_EQ(*written.last, metrics("run").steps.back());
  EXPECT_EQ(summary.evaluations, metrics("run").evals);
  EXPECT_EQ(summary.evaluations.size(), 2u);
}

// A run that is begun again tells of its own steps alone.
TEST_F(ConsecutiveRuns, ASummaryIsOfItsOwnRun) {
  run(first("run"));
  TrainerConfig longer = first("run");
  longer.train.steps = 8;
  const RunSummary summary = run(longer);
  EXPECT_EQ(summary.steps, 2);
  EXPECT_EQ(summary.state.step, 8);
  EXPECT_EQ(summary.last->step, 8);
  EXPECT_EQ(summary.evaluations.size(), 1u);
  EXPECT_FALSE(run(longer).last);
}

}  // namespace
}  // namespace smoe
