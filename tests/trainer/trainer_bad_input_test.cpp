// What a user can hand the trainer that it must refuse: the message names file, found and expected, and nothing that was
// there before is harmed.
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <set>
#include <string>

#include "tests/trainer/training_fixture.h"
#include "trainer/inference.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using TrainerBadInput = TrainingTest;
namespace fs = std::filesystem;

void flip_byte(const fs::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(at);
  file.put(byte);
}

TEST_F(TrainerBadInput, ResumeAgainstAnotherModelShape) {
  ASSERT_EQ(train(config("run")), 0);
  const auto before = state_hash("run", 20);
  auto other = config("run");
  other.model.hidden_size = 48;
  other.model.num_local_experts = 8;
  other.train.steps = 30;
  EXPECT_TRUE(mentions(message_of([&] { train(other); }),
                       {"step-000020", "model.hidden_size: the checkpoint has 32, the configuration 48",
                        "num_local_experts", "resume=never"}));
  EXPECT_EQ(state_hash("run", 20), before);
}

TEST_F(TrainerBadInput, EveryFileOfACheckpointIsCheckedBeforeItIsUsed) {
  ASSERT_EQ(train(config("run")), 0);
  auto longer = config("run");
  longer.train.steps = 21;
  for (const char* file :
       {"model/model.safetensors", "optimizer/model.safetensors", "state.json", "model/config.json"}) {
    const fs::path path = checkpoint("run", 20) / file;
    const auto at = static_cast<std::streamoff>(fs::file_size(path) / 2);
    flip_byte(path, at);
    EXPECT_TRUE(mentions(message_of([&] { train(longer); }), {file, "SHA-256", "checkpoint.resume=", "step-000010"}))
        << file;
    flip_byte(path, at);
  }
  const fs::path model = checkpoint("run", 20) / "model" / "model.safetensors";
  const auto whole = fs::file_size(model);
  fs::resize_file(model, whole - 1);
  EXPECT_TRUE(mentions(message_of([&] { train(longer); }), {"model.safetensors", "expected"}));
  fs::remove(model);
  EXPECT_TRUE(mentions(message_of([&] { train(longer); }), {"model.safetensors", "missing"}));
}

TEST_F(TrainerBadInput, ACorruptCheckpointIsNoModelToStartFromOrToUse) {
  ASSERT_EQ(train(config("run")), 0);
  const fs::path model = checkpoint("run", 20) / "model";
  flip_byte(model / "model.safetensors", static_cast<std::streamoff>(fs::file_size(model / "model.safetensors") - 5));
  EXPECT_TRUE(mentions(message_of([&] { InferenceModel(model, mesh(), 16, make_cpu_backend(1)); }),
                       {"model.safetensors", "SHA-256"}));
  auto c = config("second");
  c.model = ModelConfig{};
  c.model.from = (root() / "run").string();
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"model.safetensors", "SHA-256"}));
}

TEST_F(TrainerBadInput, OutputDirectoryThatCannotBeMade) {
  std::ofstream(root() / "file") << "in the way";
  auto c = config("file/run");
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"file"}));
}

TEST_F(TrainerBadInput, ASecondRunInTheSameDirectoryIsRefusedAndTheFirstUnharmed) {
  Trainer first = make_trainer(config("run"));
  EXPECT_TRUE(mentions(message_of([&] { train(config("run")); }), {"another run is writing here", "process"}));
  EXPECT_EQ(first.run().end, RunEnd::complete);
}

TEST_F(TrainerBadInput, ShardsOfAnotherTokenizer) {
  write_tiny_corpus(root() / "other", "gamma", 4, 5, 61, "tokenizer-b");
  auto c = config("run");
  c.data.train.push_back({.path = (root() / "other").string()});
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"different tokenizers", "other"}));
  EXPECT_FALSE(fs::exists(root() / "run"));
}

// Its loss would be of other units, of ids that mean something else.
TEST_F(TrainerBadInput, EvaluationShardsOfAnotherTokenizerThanTheTrainingData) {
  write_tiny_corpus(root() / "other", "gamma", 4, 5, 61, "tokenizer-b");
  auto c = config("run");
  c.data.eval.push_back({.path = (root() / "other").string()});
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"different tokenizers", (root() / "a").string(), "other"}));
  EXPECT_FALSE(fs::exists(root() / "run"));
}

// Results go by the name of their source: two of one name would end the run at its first evaluation.
TEST_F(TrainerBadInput, ADirectoryThatIsEvaluatedTwice) {
  auto c = config("run");
  c.data.eval.push_back({.path = (root() / "a" / ".." / "held-out").string()});
  EXPECT_TRUE(mentions(message_of([&] { train(c); }),
                       {"data.eval", "held-out is there twice", "also as " + c.data.eval[0].path}));
  c.data.eval[1] = c.data.eval[0];
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"held-out is there twice: once is enough"}));
  c.data.eval[1].path += "/";
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"held-out/ is there twice, also as " + c.data.eval[0].path}));
  EXPECT_FALSE(fs::exists(root() / "run"));
}

TEST_F(TrainerBadInput, ASourceThatIsCalledAsAnotherOnesDirectory) {
  write_tiny_corpus(root() / "other", "alpha", 4, 5);
  write_tiny_corpus(root() / "misleading", (root() / "other").string(), 5, 5);
  auto c = config("run");
  for (const char* name : {"other", "misleading"}) c.data.eval.push_back({.path = (root() / name).string()});
  ASSERT_EQ(train(c), 0);
  std::set<std::string> sources;
  for (const EvalMetrics& row : metrics("run").evals) sources.insert(row.source);
  EXPECT_EQ(sources, (std::set<std::string>{c.data.eval[0].path, c.data.eval[1].path, c.data.eval[2].path}));
}

TEST_F(TrainerBadInput, ShardsOfAnotherTokenizerThanTheModelsOwn) {
  ASSERT_EQ(train(config("first")), 0);
  std::ofstream(checkpoint("first", 20) / "model" / "tokenizer.model") << "a tokenizer of its own";
  auto c = config("second");
  c.model = ModelConfig{};
  c.model.from = (checkpoint("first", 20) / "model").string();
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"tokenizer"}));
  EXPECT_FALSE(fs::exists(root() / "second"));
}

TEST_F(TrainerBadInput, ResumeWithShardsOfAnotherTokenizer) {
  ASSERT_EQ(train(config("run")), 0);
  std::ofstream(checkpoint("run", 20) / "model" / "tokenizer.model") << "a tokenizer of its own";
  auto longer = config("run");
  longer.train.steps = 21;
  EXPECT_TRUE(mentions(message_of([&] { train(longer); }), {"another tokenizer", "tokenizer.model"}));
  EXPECT_FALSE(fs::exists(checkpoint("run", 21)));
}

TEST_F(TrainerBadInput, AVocabularyThatTheModelDoesNotHave) {
  auto c = config("run");
  c.model.vocab_size = 60;
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"61", "60"}));
}

TEST_F(TrainerBadInput, ACorruptShard) {
  const fs::path shard = root() / "a" / "shard-00000.h5";
  flip_byte(shard, static_cast<std::streamoff>(fs::file_size(shard) / 2));
  EXPECT_TRUE(mentions(message_of([&] { train(config("run")); }), {"shard-00000.h5"}));
  EXPECT_FALSE(fs::exists(root() / "run"));
}

TEST_F(TrainerBadInput, AModelLargerThanTheMachine) {
  auto c = config("run");
  c.model.hidden_size = 1 << 14;
  c.model.intermediate_size = 1 << 16;
  c.model.num_hidden_layers = 64;
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"GiB", "this machine has"}));
  // 12 million names, which are a minute's work.
  c.model.num_hidden_layers = 1024;
  c.model.num_local_experts = 4096;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"GiB", "this machine has"}));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST_F(TrainerBadInput, WeightsThatDoNotFitTheConfigAreListedTogether) {
  ASSERT_EQ(train(config("first")), 0);
  fs::copy(checkpoint("first", 20) / "model",
           root() / "edited");  // apart from the manifest, which would refuse it first
  const fs::path config_file = root() / "edited" / "config.json";
  std::string text = read_file(config_file, 1 << 20);
  const auto at = text.find("\"intermediate_size\": 40");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 23, "\"intermediate_size\": 48");
  write_file_atomically(config_file, text);
  const auto message = message_of([&] { InferenceModel(config_file.parent_path(), mesh(), 16, make_cpu_backend(1)); });
  EXPECT_TRUE(mentions(message, {"experts.0.w1.weight: found [40, 32], expected [48, 32]", "and"}));
}

// A disk that fills while a checkpoint is written, as a limit on the size of files.
TEST_F(TrainerBadInput, DiskFullWhileSavingLeavesThePreviousCheckpoint) {
  ASSERT_EQ(train(config("run")), 0);
  const auto before = state_hash("run", 20);
  auto longer = config("run");
  longer.train.steps = 21;
  Trainer trainer = make_trainer(longer);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = fs::file_size(checkpoint("run", 20) / "model" / "model.safetensors") / 2;
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto message = message_of([&] { trainer.run(); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(mentions(message, {"model.safetensors", "bytes"}));
  EXPECT_FALSE(fs::exists(checkpoint("run", 21)));
  for (const auto& entry : fs::directory_iterator(root() / "run" / "checkpoints"))
    EXPECT_EQ(entry.path().filename().string().find(".step"), std::string::npos) << entry.path();
  EXPECT_EQ(state_hash("run", 20), before);
  EXPECT_EQ(latest_checkpoint(root() / "run" / "checkpoints"), checkpoint("run", 20));
}

// A limit on files that each tensor passes has as many files as tensors, all open at once: told before the first step.
TEST_F(TrainerBadInput, MoreFilesThanMayBeOpen) {
  auto c = config("run");
  c.checkpoint.max_shard_bytes = 1;
  rlimit old{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  rlimit few = old;
  few.rlim_cur = 48;
  ::setrlimit(RLIMIT_NOFILE, &few);
  const auto message = message_of([&] { train(c); });
  ::setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_TRUE(
      mentions(message, {"checkpoint.max_shard_bytes: of model/ of a checkpoint files of at most 1 bytes would be",
                         "expected at most 36", "48 open (ulimit -n)"}));
  EXPECT_FALSE(fs::exists(root() / "run" / "metrics.jsonl"));
}

TEST_F(TrainerBadInput, ADirectoryThatHoldsNoModel) {
  EXPECT_TRUE(mentions(message_of([&] { find_model_directory(root() / "a"); }), {"no model found", "expected"}));
  auto c = config("run");
  c.checkpoint.resume = (root() / "nowhere").string();
  EXPECT_TRUE(mentions(message_of([&] { train(c); }), {"nowhere"}));
}

}  // namespace
}  // namespace smoe
