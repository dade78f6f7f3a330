// `smoe prepare --chat`: which ids and which targets of an example are stored, and what becomes of those that are not.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/import/prepare.h"
#include "data/shards/manifest.h"
#include "data/shards/token_shard.h"
#include "data/text/tokenizer.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;

// Ids, and targets in upper case: bytes as letters, bos '<', eos '>'.
std::string letters_of(const std::vector<std::uint32_t>& ids, const std::vector<std::uint8_t>& mask) {
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const char letter = ids[i] == 1 ? '<' : ids[i] == 2 ? '>' : static_cast<char>(ids[i] - 3);
    text += mask[i] == 0 ? letter : letter == '>' ? '!' : static_cast<char>(std::toupper(letter));
  }
  return text;
}

class PrepareExamples : public testing::Test {
 protected:
  PrepareOptions options(const std::string& chat = "plain") const {
    PrepareOptions options;
    options.inputs = {(directory_ / "examples.jsonl").string()};
    options.out_directory = out_.string();
    options.tokenizer = "bytes";
    options.threads = 2;
    options.examples = ExampleSettings{.chat = chat};
    return options;
  }
  void examples(const std::string& text) const { spill(directory_ / "examples.jsonl", text); }

  std::vector<std::string> stored() const {
    const Manifest manifest = read_manifest(out_);
    std::vector<std::string> found;
    for (const ShardEntry& entry : manifest.shards) {
      const TokenShard shard(out_ / entry.file, manifest.info, entry);
      const auto offsets = shard.document_offsets();
      for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        std::vector<std::uint32_t> ids(offsets[i + 1] - offsets[i]);
        std::vector<std::uint8_t> mask(ids.size(), 1);
        shard.read_tokens(static_cast<std::int64_t>(offsets[i]), ids);
        if (shard.has_loss_mask()) shard.read_loss_mask(static_cast<std::int64_t>(offsets[i]), mask);
        found.push_back(letters_of(ids, mask));
      }
    }
    return found;
  }

  const ScratchDir directory_;
  const std::filesystem::path out_ = directory_ / "out";
};

constexpr const char* three_schemas =
    "{\"prompt\": \"ask \", \"completion\": \"say\"}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"who\"}, {\"role\": \"assistant\", \"content\": \"me\"}]}\n\n"
    "{\"instruction\": \"do\", \"input\": \"it\", \"output\": \"done\"}\n";

TEST_F(PrepareExamples, AnExampleIsADocumentOfWhichTheAnswerIsTheTarget) {
  examples(three_schemas);
  const PrepareSummary summary = prepare(options());
  EXPECT_EQ(stored(), (std::vector<std::string>{"<ask SAY!", "<whoME!", "<do\nitDONE!"}));
  EXPECT_EQ(summary.examples.examples, 3);
  EXPECT_EQ(summary.examples.targets, 4 + 3 + 5);
  EXPECT_EQ(summary.examples.longest, 11);
  EXPECT_EQ(summary.examples.schemas,
            (std::map<ExampleSchema, std::int64_t>{
                {ExampleSchema::prompt_completion, 1}, {ExampleSchema::messages, 1}, {ExampleSchema::alpaca, 1}}));
}

TEST_F(PrepareExamples, EverythingIsTheTargetWhereThatIsWanted) {
  examples(three_schemas);
  PrepareOptions all = options();
  all.examples->loss_on = LossOn::all;
  prepare(all);
  EXPECT_EQ(stored(), (std::vector<std::string>{"<ASK SAY!", "<WHOME!", "<DO\nITDONE!"}));
}

TEST_F(PrepareExamples, WhatIsTooLongIsCutLeftOutOrRefusedAndCounted) {
  examples(three_schemas);
  PrepareOptions limited = options();
  limited.examples->max_length = 8;
  expect_refused([&] { prepare(limited); },
                 {"examples.jsonl:1:1", "9 ids", "the 8 of --max-length", "--too-long truncate or skip"});
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));

  limited.examples->too_long = TooLong::skip;
  PrepareSummary summary = prepare(limited);
  EXPECT_EQ(stored(), (std::vector<std::string>{"<whoME!"}));
  EXPECT_EQ(summary.examples.too_long, 2);
  EXPECT_EQ(summary.examples.examples, 1);
  EXPECT_EQ(summary.examples.longest, 11);

  std::filesystem::remove_all(out_);
  limited.examples->too_long = TooLong::truncate;
  limited.examples->max_length = 6;
  summary = prepare(limited);
  EXPECT_EQ(stored(), (std::vector<std::string>{"<ask S", "<whoME"}));
  EXPECT_EQ(summary.examples.truncated, 2);
  EXPECT_EQ(summary.examples.without_target, 1) << "<do\\nit has lost its answer";
  EXPECT_EQ(summary.examples.targets, 3);
}

TEST_F(PrepareExamples, OneThatHasNoPlaceInTheTemplateIsABadDocument) {
  examples(
      std::string(three_schemas) +
      "  {\"messages\": [{\"role\": \"assistant\", \"content\": \"me\"}]}\n{\"prompt\": \"x\", \"completion\": \"\"}\n{oops\n");
  expect_refused([&] { prepare(options()); }, {"examples.jsonl:5:3: turn 1 (assistant)"});
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));

  PrepareOptions lenient = options();
  lenient.skip_bad = 3;
  std::vector<std::string> told;
  lenient.on_bad = [&](const std::string& message) { told.push_back(message); };
  const PrepareSummary summary = prepare(lenient);
  EXPECT_EQ(stored().size(), 3u);
  EXPECT_EQ(summary.bad_documents, 3);
  ASSERT_EQ(told.size(), 3u);
  EXPECT_TRUE(mentions(told[1], {"examples.jsonl:6:1", "message 2", "empty"}));
  EXPECT_TRUE(mentions(told[2], {"examples.jsonl:7:"}));
}

TEST_F(PrepareExamples, TheFirstAreShownBeforeAnythingIsWritten) {
  examples(three_schemas);
  PrepareOptions watched = options();
  std::vector<std::size_t> lengths;
  watched.examples->shown = 2;
  watched.on_example = [&](const Tokenizer&, std::span<const std::int32_t> ids,
                           std::span<const std::uint8_t> is_target) {
    EXPECT_EQ(ids.size(), is_target.size());
    lengths.push_back(ids.size());
  };
  bool counted = false;
  watched.before_writing = [&](const PrepareSummary& summary) {
    counted = true;
    EXPECT_EQ(summary.examples.examples, 3);
    EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));
  };
  prepare(watched);
  EXPECT_EQ(lengths, (std::vector<std::size_t>{9, 7}));
  EXPECT_TRUE(counted);
}

TEST_F(PrepareExamples, ThreadsDoNotMatter) {
  std::string many;
  for (int i = 0; i < 30000; ++i)
    many += "{\"prompt\": \"what is " + std::to_string(i) + "\", \"completion\": \"number " + std::to_string(i * 7) +
            "\"}\n";
  examples(many);
  PrepareOptions one = options();
  one.threads = 1;
  prepare(one);
  const std::string alone = slurp(out_ / "shard-00000.h5");
  std::filesystem::remove_all(out_);
  PrepareOptions several = options();
  several.threads = 4;
  EXPECT_EQ(prepare(several).examples.examples, 30000);
  EXPECT_TRUE(slurp(out_ / "shard-00000.h5") == alone);
}

TEST_F(PrepareExamples, WhatIsNotJsonIsRefused) {
  spill(directory_ / "notes.txt", "text");
  PrepareOptions wrong = options();
  wrong.inputs = {(directory_ / "notes.txt").string()};
  expect_refused([&] { prepare(wrong); }, {"notes.txt", "is read as text, expected JSON"});
  examples(three_schemas);
  expect_refused([&] { prepare(options("llama4")); }, {"llama4", "llama3"});
  expect_refused([&] { prepare(options("chatml")); }, {"<|im_start|>"});
  PrepareOptions ids = options();
  ids.tokenizer.clear();
  ids.vocab_size = 300;
  expect_refused([&] { prepare(ids); }, {"--tokenizer"});
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));
}

TEST_F(PrepareExamples, ExamplesWithoutAnyTargetAreNoData) {
  examples(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}]}\n");
  expect_refused([&] { prepare(options()); }, {"no example to store", "1 without a target"});
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));
}

}  // namespace
}  // namespace smoe
