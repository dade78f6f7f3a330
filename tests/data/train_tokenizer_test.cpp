#include "data/import/train_tokenizer.h"

#include <gtest/gtest.h>

#include "data/text/sentencepiece_model.h"
#include "data/import/text_lines.h"
#include "data/files/utf8.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;

TEST(TrainTokenizer, HasMixtralsSettings) {
  const auto& tokenizer = small_tokenizer();
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_EQ(tokenizer.unk(), 0);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  const SentencePieceModel model = parse_sentencepiece_model(tokenizer.file());
  EXPECT_EQ(model.type, SentencePieceModel::Type::bpe);
  EXPECT_TRUE(model.byte_fallback);
  EXPECT_TRUE(model.add_dummy_prefix);
  EXPECT_FALSE(model.remove_extra_whitespaces);
  EXPECT_FALSE(model.normalizes_characters);
  EXPECT_EQ(model.pieces[3], "<0x00>");
  EXPECT_EQ(model.pieces[258], "<0xFF>");
  bool has_run_of_spaces = false;
  for (std::size_t id = 259; id < model.pieces.size(); ++id) {
    const std::string piece(model.pieces[id]);
    has_run_of_spaces |= piece == "\xE2\x96\x81\xE2\x96\x81";
    if (piece.find_first_of("0123456789") != std::string::npos) {
      EXPECT_EQ(piece.size(), 1u) << piece;
    }
  }
  EXPECT_TRUE(has_run_of_spaces);
  const std::string text = "ka ka 日本 12345 and unseen Ж 😀\n";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_LT(tokenizer.encode(made_up_text(5, 50)).size() * 2, made_up_text(5, 50).size());
}

TEST(TrainTokenizer, GivesTheSameFileForTheSameText) {
  const ScratchDir directory;
  spill(directory / "a.txt", made_up_text(2, 800));
  std::vector<std::string> hashes;
  for (const std::string out : {"one", "two"})
    hashes.push_back(train_tokenizer({.inputs = {(directory / "a.txt").string()},
                                      .vocab_size = 400,
                                      .out_directory = (directory / out).string(),
                                      .sample_bytes = 20000})
                         .sha256);
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST(TrainTokenizer, LearnsFromAShareOfALargeCorpus) {
  const ScratchDir directory;
  spill(directory / "a.jsonl", "{\"body\": \"" + std::string(10, 'x') + "\"}\n");
  spill(directory / "b.txt", made_up_text(2, 5000));
  const TrainTokenizerSummary summary = train_tokenizer({.inputs = {directory.path().string()},
                                                         .text_field = "body",
                                                         .vocab_size = 400,
                                                         .out_directory = (directory / "out").string(),
                                                         .sample_bytes = 40000});
  EXPECT_GT(summary.corpus_bytes, 150000u);
  EXPECT_NEAR(static_cast<double>(summary.sampled_bytes), 40000.0, 4000.0);
  EXPECT_EQ(load_tokenizer(summary.file.string())->vocab_size(), 400);
}

TEST(TextLines, CutsLongLinesBetweenCharactersAndSkipsWhatIsNotText) {
  const ScratchDir directory;
  std::string wide;
  for (int i = 0; i < 3000; ++i) wide += "日";
  spill(directory / "a.txt", "one\n\ntwo\n\xFF bad\n" + wide + std::string("\nze\0ro", 6));
  spill(directory / "b.jsonl", "{\"text\": \"x\\ny\"}\n\n{\"text\": \"\"}\n{\"text\": \"z\"}");
  const CorpusFiles files = list_corpus_files({directory.path().string()}, CorpusFormat::automatic);
  ASSERT_EQ(files.files.size(),
            1u);  // a.txt has a zero byte: passed over in a directory, read as what it is said to be
  CorpusFiles both = list_corpus_files({(directory / "a.txt").string()}, CorpusFormat::text);
  both.files.insert(both.files.end(), files.files.begin(), files.files.end());
  spill(directory / "c.json", "[{\"text\": \"in\"}, {\"text\": \"an\\narray\"}]");
  both.files.push_back({directory / "c.json", CorpusFormat::json, 0});
  TextLines lines(both.files, "text");
  std::vector<std::string> found;
  std::string joined;
  while (const auto line = lines.next()) {
    EXPECT_TRUE(is_valid_utf8(*line));
    EXPECT_LE(line->size(), TextLines::longest_line);
    if (line->starts_with("日"))
      joined += *line;
    else
      found.emplace_back(*line);
  }
  EXPECT_EQ(found, (std::vector<std::string>{"one", "two", "ze", "ro", "x", "y", "z", "in", "an", "array"}));
  EXPECT_EQ(joined, wide);
  EXPECT_EQ(lines.invalid_lines(), 1);
}

TEST(TrainTokenizerBadInput, LeavesNothingBehind) {
  const ScratchDir directory;
  const auto options = [&](const std::string& input, std::int64_t vocab_size) {
    return TrainTokenizerOptions{.inputs = {(directory / input).string()},
                                 .vocab_size = vocab_size,
                                 .out_directory = (directory / "out").string()};
  };
  const auto refused = [&](const TrainTokenizerOptions& bad, std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { train_tokenizer(bad); }, pieces);
    EXPECT_FALSE(std::filesystem::exists(directory / "out")) << *pieces.begin();
  };
  spill(directory / "small.txt", "a few words");
  spill(directory / "empty.txt", "\n\n");
  spill(directory / "bad.jsonl", "{\"text\": \"fine\"}\n{\"text\": \n");
  spill(directory / "text.jsonl", "{\"body\": \"fine\"}\n");
  refused(options("small.txt", 100), {"100", "260"});
  refused(options("small.txt", 5000), {"5000", "SentencePiece", "Vocabulary size too high"});
  refused(options("nowhere.txt", 400), {"nowhere.txt"});
  refused(options("empty.txt", 400), {"empty.txt", "no text"});
  refused(options("bad.jsonl", 400), {"bad.jsonl:2"});
  refused(options("text.jsonl", 400), {"text.jsonl:1", "text"});
}

TEST(TrainTokenizerBadInput, RefusesToReplaceAModelOrToReadIds) {
  const ScratchDir directory;
  spill(directory / "a.txt", made_up_text(2, 50));
  spill(directory / "tokenizer.model", "precious");
  const TrainTokenizerOptions options{
      .inputs = {(directory / "a.txt").string()}, .vocab_size = 300, .out_directory = directory.path().string()};
  expect_refused([&] { train_tokenizer(options); }, {"tokenizer.model", "exists"});
  EXPECT_EQ(slurp(directory / "tokenizer.model"), "precious");
  TrainTokenizerOptions ids = options;
  spill(directory / "ids.npy", "\x93NUMPY");
  ids.inputs = {(directory / "ids.npy").string()};
  expect_refused([&] { train_tokenizer(ids); }, {"ids.npy", "npy"});
  TrainTokenizerOptions under_a_file = options;
  under_a_file.out_directory = (directory / "a.txt" / "out").string();
  expect_refused([&] { train_tokenizer(under_a_file); }, {"a.txt"});
}

}  // namespace
}  // namespace smoe
