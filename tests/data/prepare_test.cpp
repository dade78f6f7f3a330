#include "data/import/prepare.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "data/shards/manifest.h"
#include "data/import/npy.h"
#include "data/shards/token_shard.h"
#include "data/text/tokenizer.h"
#include "tests/data/megatron_fixtures.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/data/file_size_limit.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;

// Every document of a directory of shards.
std::vector<Ids> documents_in(const std::filesystem::path& directory) {
  const Manifest manifest = read_manifest(directory);
  std::vector<Ids> documents;
  for (const ShardEntry& entry : manifest.shards) {
    const TokenShard shard(directory / entry.file, manifest.info, entry);
    const auto offsets = shard.document_offsets();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      std::vector<std::uint32_t> ids(offsets[i + 1] - offsets[i]);
      shard.read_tokens(static_cast<std::int64_t>(offsets[i]), ids);
      documents.emplace_back(ids.begin(), ids.end());
    }
  }
  return documents;
}

Ids with_eos(const Tokenizer& tokenizer, const std::string& text) {
  Ids ids = tokenizer.encode(text);
  ids.push_back(tokenizer.eos());
  return ids;
}

class Prepare : public testing::Test {
 protected:
  PrepareOptions options(const std::vector<std::string>& inputs, const std::string& tokenizer) const {
    PrepareOptions options;
    for (const std::string& input : inputs) options.inputs.push_back((directory_ / input).string());
    options.out_directory = out_.string();
    options.tokenizer = tokenizer;
    options.threads = 2;
    return options;
  }

  const ScratchDir directory_;
  const std::filesystem::path out_ = directory_ / "out";
};

TEST_F(Prepare, MakesADocumentOfEachTextFileAndEachLineOfJson) {
  spill(directory_ / "a.txt", "two\nlines");
  spill(directory_ / "b.txt", "");
  spill(directory_ / "c.jsonl", "{\"text\": \"x\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"h\\u00e9\\n\"}");
  const PrepareSummary summary = prepare(options({"a.txt", "b.txt", "c.jsonl"}, "bytes"));
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(documents_in(out_),
            (std::vector<Ids>{with_eos(*bytes, "two\nlines"), with_eos(*bytes, "x"), with_eos(*bytes, "hé\n")}));
  EXPECT_EQ(summary.documents, 3);
  EXPECT_EQ(summary.tokens, 10 + 2 + 5);
  EXPECT_EQ(summary.empty_documents, 2);
  EXPECT_EQ(summary.files, 3);
  EXPECT_EQ(summary.bytes_done, summary.bytes_total);
  const ShardSetInfo info = read_manifest(out_).info;
  EXPECT_EQ(info.tokenizer_name, "bytes");
  EXPECT_EQ(info.tokenizer_sha256, bytes->sha256());
  EXPECT_EQ(info.vocab_size, 259);
  EXPECT_EQ(info.bos, 1);
  EXPECT_EQ(info.eos, 2);
  EXPECT_EQ(info.source, "a and 2 more");
  EXPECT_FALSE(std::filesystem::exists(out_ / "tokenizer.model"));
}

TEST_F(Prepare, WritesTheSameWhateverTheThreads) {
  std::string lines;
  for (int i = 0; i < 300; ++i)
    lines += "{\"text\": \"" + std::string(i % 7, ' ') + "document " + std::to_string(i) + "\"}\n";
  spill(directory_ / "a.jsonl", lines);
  std::string large = made_up_text(3, 60000);  // above two MiB: in several parts
  ASSERT_GT(large.size(), 2u << 20);
  spill(directory_ / "b.txt", large);
  const auto tokenizer = load_tokenizer(small_model_file());
  std::vector<Ids> expected;
  for (int i = 0; i < 300; ++i)
    expected.push_back(with_eos(*tokenizer, std::string(i % 7, ' ') + "document " + std::to_string(i)));
  expected.push_back(with_eos(*tokenizer, large));
  std::string first;
  for (const int threads : {1, 2, 5}) {
    PrepareOptions run = options({"a.jsonl", "b.txt"}, small_model_file());
    run.threads = threads;
    run.out_directory = (directory_ / ("out-" + std::to_string(threads))).string();
    run.source = "a test";
    prepare(run);
    EXPECT_EQ(documents_in(run.out_directory), expected);
    const std::string manifest = slurp(std::filesystem::path(run.out_directory) / "manifest.json");
    if (threads == 1) first = manifest;
    EXPECT_EQ(manifest, first);  // it holds the shards' SHA-256
  }
}

// A chat that was rendered to text has them where ids were meant.
TEST_F(Prepare, CountsBosAndEosThatATextSpellsOut) {
  spill(directory_ / "a.jsonl", "{\"text\": \"<s> [INST] ka [/INST] to</s>\"}\n{\"text\": \"a < s, <span>\"}");
  spill(directory_ / "b.txt", "ka</s>");
  EXPECT_EQ(prepare(options({"a.jsonl", "b.txt"}, small_model_file())).spelled_controls, 3);
  PrepareOptions bytes = options({"b.txt"}, "bytes");
  bytes.out_directory = (directory_ / "bytes").string();
  EXPECT_EQ(prepare(bytes).spelled_controls, 0) << "every text is spelled out there";
}

TEST_F(Prepare, LaysTheTokenizerBesideTheShards) {
  spill(directory_ / "a.txt", "ka to");
  prepare(options({"a.txt"}, small_model_file()));
  EXPECT_EQ(slurp(out_ / "tokenizer.model"), slurp(small_model_file()));
  EXPECT_EQ(load_tokenizer(out_.string())->sha256(), read_manifest(out_).info.tokenizer_sha256);
}

// The files of a directory whose tokenizer_config.json adds tokens to the small model.
void write_chat_tokenizer(const std::filesystem::path& directory) {
  std::filesystem::create_directory(directory);
  spill(directory / "tokenizer.model", slurp(small_model_file()));
  spill(directory / "tokenizer_config.json",
        R"({"eos_token": "<|im_end|>", "added_tokens_decoder": {"600": {"content": "<|im_end|>", "special": true},
            "601": {"content": "<|im_start|>", "special": true}}})");
  spill(directory / "chat_template.jinja", "{{ messages }}\n");
}

TEST_F(Prepare, HonoursTheTokensThatADirectoryAdds) {
  const auto chat = directory_ / "chat";
  write_chat_tokenizer(chat);
  std::string large = "<|im_start|>user\nka<|im_end|>";
  while (large.size() < 3u << 20) large += " strom <|im_start|>" + made_up_text(3, 40) + "<|im_end|>\n";
  spill(directory_ / "a.jsonl", "{\"text\": \"<|im_start|>ka to<|im_end|>\"}");
  spill(directory_ / "b.txt", large);  // several parts, on several threads
  prepare(options({"a.jsonl", "b.txt"}, chat.string()));
  const auto tokenizer = load_tokenizer(chat.string());
  EXPECT_EQ(documents_in(out_),
            (std::vector<Ids>{with_eos(*tokenizer, "<|im_start|>ka to<|im_end|>"), with_eos(*tokenizer, large)}));
  const ShardSetInfo info = read_manifest(out_).info;
  EXPECT_EQ(info.vocab_size, 602);
  EXPECT_EQ(info.eos, 600);
  EXPECT_EQ(info.tokenizer_sha256, tokenizer->sha256());
  EXPECT_NE(info.tokenizer_sha256, load_tokenizer(small_model_file())->sha256());
  // What lies beside the shards is the same tokenizer again.
  for (const char* name : {"tokenizer.model", "tokenizer_config.json", "chat_template.jinja"})
    EXPECT_EQ(slurp(out_ / name), slurp(chat / name)) << name;
  EXPECT_EQ(tokenizer_identity(out_).sha256, info.tokenizer_sha256);
}

TEST_F(Prepare, CanLeaveEosAway) {
  spill(directory_ / "a.txt", "hi");
  PrepareOptions run = options({"a.txt"}, "bytes");
  run.append_eos = false;
  prepare(run);
  EXPECT_EQ(documents_in(out_), (std::vector<Ids>{{3 + 'h', 3 + 'i'}}));
}

TEST_F(Prepare, TakesIdsAsTheyAre) {
  const Ids values = {1, 2, 3, 4, 5, 6};
  write_npy(directory_ / "rows.npy", values, 2, 3);
  write_megatron(directory_ / "pair", 8, {{9, 8}, {}, {7}});
  PrepareOptions run = options({"rows.npy", "pair"}, "");
  run.vocab_size = 10;
  const PrepareSummary summary = prepare(run);
  EXPECT_EQ(documents_in(out_), (std::vector<Ids>{{1, 2, 3}, {4, 5, 6}, {9, 8}, {7}}));
  EXPECT_EQ(summary.empty_documents, 1);
  EXPECT_EQ(summary.bytes_done, summary.bytes_total);
  const ShardSetInfo info = read_manifest(out_).info;
  EXPECT_EQ(info.vocab_size, 10);
  EXPECT_EQ(info.bos, -1);
  EXPECT_EQ(info.eos, -1);
  EXPECT_EQ(info.tokenizer_sha256, "");
}

TEST_F(Prepare, KeepsLongRowsOfIdsWhole) {
  Ids values(1 << 20);  // two rows that no batch border meets
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i % 251);
  write_npy(directory_ / "rows.npy", values, 4, 1 << 18);
  write_npy(directory_ / "long.npy", values, 1, 1 << 20);
  PrepareOptions run = options({"rows.npy", "long.npy"}, "");
  run.vocab_size = 251;
  prepare(run);
  const auto documents = documents_in(out_);
  ASSERT_EQ(documents.size(), 5u);
  EXPECT_EQ(documents[4], values);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_TRUE(std::equal(documents[i].begin(), documents[i].end(), values.begin() + static_cast<int>(i << 18)));
}

TEST_F(Prepare, SplitsIntoShardsOfTheSizeAskedFor) {
  for (const char* name : {"a.txt", "b.txt", "c.txt"}) spill(directory_ / name, std::string(9, 'x'));
  PrepareOptions run = options({"a.txt", "b.txt", "c.txt"}, "bytes");
  run.shard_tokens = 20;
  EXPECT_EQ(prepare(run).shards, 2);
  EXPECT_EQ(documents_in(out_).size(), 3u);
}

TEST_F(Prepare, TellsHowFarItIs) {
  spill(directory_ / "a.txt", made_up_text(3, 40000));
  PrepareOptions run = options({"a.txt"}, "bytes");
  std::vector<PrepareProgress> told;
  run.on_progress = [&](const PrepareProgress& now) { told.push_back(now); };
  const PrepareSummary summary = prepare(run);
  ASSERT_GE(told.size(), 2u);
  for (std::size_t i = 1; i < told.size(); ++i) {
    EXPECT_GT(told[i].bytes_done, told[i - 1].bytes_done);
    EXPECT_GT(told[i].tokens, told[i - 1].tokens);
    EXPECT_GE(told[i].seconds, told[i - 1].seconds);
  }
  EXPECT_EQ(told.back().bytes_done, summary.bytes_total);
  EXPECT_EQ(told.back().tokens, summary.tokens);
}

TEST_F(Prepare, SaysWhatEachFileWasTakenFor) {
  spill(directory_ / "a.json", "[{\"text\": \"x\"}]\n");
  spill(directory_ / "b.data", "{\"text\": \"y\"}\n{\"text\": \"z\", \"score\": NaN}\n");
  spill(directory_ / "c", "\xEF\xBB\xBFplain");
  const PrepareSummary summary = prepare(options({"a.json", "b.data", "c"}, "bytes"));
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(documents_in(out_), (std::vector<Ids>{with_eos(*bytes, "x"), with_eos(*bytes, "y"), with_eos(*bytes, "z"),
                                                  with_eos(*bytes, "plain")}));
  ASSERT_EQ(summary.inputs.size(), 3u);
  EXPECT_EQ(summary.inputs[0].format, CorpusFormat::json);
  EXPECT_EQ(summary.inputs[1].format, CorpusFormat::jsonl);
  EXPECT_EQ(summary.inputs[2].format, CorpusFormat::text);
  EXPECT_EQ(summary.bytes_done, summary.bytes_total);
  EXPECT_EQ(summary.foreign_bytes, 0);
  EXPECT_TRUE(summary.warnings.empty());
}

// Bytes of no character are found wherever parts of a MiB meet, and characters across such a border are none.
TEST_F(Prepare, RefusesBytesThatAreNoUtf8UnlessTheyAreCalledText) {
  const std::size_t border = 1 << 20;
  for (const std::size_t before :
       {std::size_t{0}, std::size_t{100}, border - 3, border - 2, border - 1, border, border + 1}) {
    const std::string text = std::string(before, 'x') + "\xE6\x97\xA5" + std::string(border + 100, 'y');
    spill(directory_ / "a.txt", text);
    PrepareOptions run = options({"a.txt"}, "bytes");
    EXPECT_EQ(prepare(run).foreign_bytes, 0);
    EXPECT_EQ(documents_in(out_), std::vector<Ids>{with_eos(*load_tokenizer("bytes"), text)});
    std::filesystem::remove_all(out_);
    for (const std::string& bad :
         {std::string("\xE6\x97"), std::string("\x97"), std::string("\xFF"), std::string(1, '\0')}) {
      std::string damaged = std::string(before, 'x') + "\xE6\x97\xA5" + bad + std::string(border + 100, 'y');
      spill(directory_ / "a.txt", damaged);
      PrepareOptions run = options({"a.txt"}, "bytes");
      if (bad[0] == 0 && before < 60000)
        expect_refused([&] { prepare(run); },
                       {"a.txt is binary (.txt)", "byte " + std::to_string(before + 3), "--format text"});
      else
        expect_refused([&] { prepare(run); }, {"a.txt:1: byte " + std::to_string(before + 3), "--format text"});
      EXPECT_FALSE(std::filesystem::exists(out_));
      run.format = CorpusFormat::text;
      EXPECT_EQ(prepare(run).foreign_bytes, static_cast<std::int64_t>(bad.size())) << before;
      std::filesystem::remove_all(out_);
    }
  }
}

TEST_F(Prepare, WarnsOfIdsInAColumn) {
  write_npy(directory_ / "column.npy", Ids{1, 2, 3, 4}, 4, 1);
  write_npy(directory_ / "row.npy", Ids{1, 2, 3, 4}, 1, 4);
  PrepareOptions run = options({"row.npy", "column.npy"}, "");
  run.vocab_size = 10;
  PrepareSummary summary = prepare(run);
  ASSERT_EQ(summary.warnings.size(), 1u);
  for (const char* piece : {"column.npy", "(4, 1)", "of one id", "a.ravel()"})
    EXPECT_NE(summary.warnings[0].find(piece), std::string::npos) << summary.warnings[0];
  std::filesystem::remove_all(out_);
  run = options({"row.npy"}, "");
  run.vocab_size = 10;
  EXPECT_TRUE(prepare(run).warnings.empty());
  std::filesystem::remove_all(out_);
  write_megatron(directory_ / "pair", 8, {{9}, {8}});
  run = options({"pair"}, "");
  run.vocab_size = 10;
  summary = prepare(run);
  ASSERT_EQ(summary.warnings.size(), 1u);
  EXPECT_NE(summary.warnings[0].find("all 2 documents are of one token"), std::string::npos);
}

TEST_F(Prepare, TellsEveryWarning) {
  std::filesystem::create_directory(directory_ / "guessed");
  std::filesystem::copy_file(small_model_file(), directory_ / "guessed" / "tokenizer.model");
  spill(directory_ / "guessed" / "tokenizer_config.json",
        R"({"added_tokens_decoder": {"600": {"content": "<x>", "special": true}}})");
  spill(directory_ / "a.jsonl", "{\"text\": \"<x>\"}\n{\"text\": \"<x>\"}\n");
  PrepareOptions run = options({"a.jsonl"}, (directory_ / "guessed").string());
  run.append_eos = false;
  const PrepareSummary summary = prepare(run);
  ASSERT_EQ(summary.warnings.size(), 2u);
  EXPECT_NE(summary.warnings[0].find("legacy"), std::string::npos);
  EXPECT_NE(summary.warnings[1].find("all 2 documents are of one token"), std::string::npos);
}

class PrepareBadInput : public Prepare {
 protected:
  void refused(const PrepareOptions& bad, std::initializer_list<std::string_view> pieces) const {
    expect_refused([&] { prepare(bad); }, pieces);
    EXPECT_FALSE(std::filesystem::exists(out_)) << *pieces.begin();
  }
};

TEST_F(PrepareBadInput, LeavesNoOutputBehind) {
  spill(directory_ / "empty.txt", "");
  spill(directory_ / "fine.jsonl", "{\"text\": \"x\"}\n");
  spill(directory_ / "bad.jsonl", "{\"text\": \"fine\"}\n{\"text\": 7}\n");
  spill(directory_ / "broken.model", model_of({"a"}).substr(0, 400));
  refused(options({"nowhere.txt"}, "bytes"), {"nowhere.txt"});
  refused(options({"empty.txt"}, "bytes"), {"no document", "empty.txt", "1 empty"});
  refused(options({"fine.jsonl", "bad.jsonl"}, "bytes"), {"bad.jsonl:2", "text"});
  refused(options({"fine.jsonl"}, (directory_ / "nowhere.model").string()), {"nowhere.model"});
  refused(options({"fine.jsonl"}, (directory_ / "broken.model").string()), {"broken.model"});
  refused(options({"fine.jsonl"}, ""), {"fine.jsonl", "--tokenizer"});
  PrepareOptions no_field = options({"fine.jsonl"}, "bytes");
  no_field.text_field = "content";
  refused(no_field, {"fine.jsonl:1", "content"});
  PrepareOptions both = options({"fine.jsonl"}, "bytes");
  both.vocab_size = 300;
  refused(both, {"both"});
}

TEST_F(PrepareBadInput, AnErrorInALaterPartTakesBackTheEarlierOnes) {
  std::string lines;
  while (lines.size() < 3u << 20) lines += "{\"text\": \"" + std::string(1000, 'x') + "\"}\n";
  spill(directory_ / "a.jsonl", lines + "{\"text\" \n");
  const auto line = std::count(lines.begin(), lines.end(), '\n') + 1;
  refused(options({"a.jsonl"}, "bytes"), {"a.jsonl:" + std::to_string(line)});
}

TEST_F(PrepareBadInput, RefusesIdsOutsideTheVocabulary) {
  const auto with_vocabulary = [&](const std::string& input, std::int64_t size) {
    PrepareOptions run = options({input}, "");
    run.vocab_size = size;
    return run;
  };
  write_npy(directory_ / "ids.npy", Ids{1, 2, 300, 3}, 1, 4);
  refused(with_vocabulary("ids.npy", 300), {"ids.npy", "element 2", "300"});
  refused(with_vocabulary("ids.npy", 0), {"--vocab-size"});
  refused(options({"ids.npy"}, "bytes"), {"ids.npy", "259"});
  write_npy(directory_ / "ids.npy", Ids{-1}, 1, 1);
  refused(with_vocabulary("ids.npy", 300), {"ids.npy", "element 0", "-1"});
  write_megatron(directory_ / "pair", 4, {{5, 6}, {7}});
  refused(with_vocabulary("pair", 7), {"pair.bin", "element 2", "7"});
  spill(directory_ / "pair.idx", slurp(directory_ / "pair.idx").substr(0, 50));
  refused(with_vocabulary("pair", 8), {"pair.idx"});
}

TEST_F(PrepareBadInput, RefusesAnOutputThatItCannotUse) {
  spill(directory_ / "a.txt", "hi");
  PrepareOptions under_a_file = options({"a.txt"}, "bytes");
  under_a_file.out_directory = (directory_ / "a.txt" / "out").string();
  refused(under_a_file, {"a.txt"});
  prepare(options({"a.txt"}, "bytes"));
  const std::string manifest = slurp(out_ / "manifest.json");
  expect_refused([&] { prepare(options({"a.txt"}, "bytes")); }, {out_.string()});
  EXPECT_EQ(slurp(out_ / "manifest.json"), manifest);
}

TEST_F(PrepareBadInput, DoesNotReplaceAnotherTokenizer) {
  spill(directory_ / "a.txt", "ka to");
  std::filesystem::create_directory(out_);
  spill(out_ / "tokenizer.model", "another");
  expect_refused([&] { prepare(options({"a.txt"}, small_model_file())); }, {"tokenizer.model", "--out"});
  EXPECT_EQ(slurp(out_ / "tokenizer.model"), "another");
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));
}

TEST_F(PrepareBadInput, DoesNotLieDownBesideFilesThatMakeItAnotherTokenizer) {
  spill(directory_ / "a.txt", "ka to");
  write_chat_tokenizer(directory_ / "chat");
  std::filesystem::create_directory(out_);
  spill(out_ / "tokenizer_config.json", slurp(directory_ / "chat" / "tokenizer_config.json"));
  expect_refused([&] { prepare(options({"a.txt"}, small_model_file())); }, {"tokenizer_config.json", "--out"});
  EXPECT_FALSE(std::filesystem::exists(out_ / "tokenizer.model"));
  EXPECT_FALSE(std::filesystem::exists(out_ / "manifest.json"));
  EXPECT_NO_THROW(prepare(options({"a.txt"}, (directory_ / "chat").string()))) << "the same file may lie there";
}

TEST_F(PrepareBadInput, SaysThatTheDiskIsFull) {
  spill(directory_ / "a.txt", made_up_text(3, 40000));
  const FileSizeLimit limit(100000);
  refused(options({"a.txt"}, "bytes"), {out_.string()});
}

// The superuser reads everything, so it becomes nobody for a while.
class AsNobody {
 public:
  AsNobody() : was_root_(::geteuid() == 0 && ::seteuid(65534) == 0) {}
  ~AsNobody() {
    if (was_root_ && ::seteuid(0) != 0) std::abort();
  }

 private:
  bool was_root_;
};

TEST_F(PrepareBadInput, SaysWhatItMayNotReadOrWrite) {
  namespace fs = std::filesystem;
  spill(directory_ / "a.txt", "hi");
  spill(directory_ / "b.txt", "hi");
  fs::permissions(directory_ / "a.txt", fs::perms::none);
  fs::permissions(directory_.path(), static_cast<fs::perms>(0755));
  const AsNobody nobody;
  refused(options({"a.txt"}, "bytes"), {"a.txt", "Permission denied"});
  if (::geteuid() == 65534) refused(options({"b.txt"}, "bytes"), {out_.string(), "Permission denied"});
}

}  // namespace
}  // namespace smoe
