// The same corpus in every wrapping: files, compressed ones, pipes, patterns; and a few bad documents in it.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "data/files/json.h"
#include "data/import/path_pattern.h"
#include "data/import/prepare.h"
#include "data/import/text_lines.h"
#include "data/shards/manifest.h"
#include "tests/data/packed.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
namespace fs = std::filesystem;

// A FIFO that a thread of its own fills.
class FilledPipe {
 public:
  FilledPipe(const fs::path& path, std::string bytes) : path_(path) {
    if (::mkfifo(path.c_str(), 0600) != 0) throw std::logic_error("no FIFO");
    writer_ = std::thread([path, bytes = std::move(bytes)] { std::ofstream(path, std::ios::binary) << bytes; });
  }
  ~FilledPipe() {
    writer_.join();
    fs::remove(path_);
  }

 private:
  fs::path path_;
  std::thread writer_;
};

class Inputs : public testing::Test {
 protected:
  // Prepares one input in `threads` threads; the manifest, which holds the shards' SHA-256.
  std::string manifest_of(const std::string& input, const std::string& tokenizer, int threads) {
    PrepareOptions options;
    options.inputs = {(directory_ / input).string()};
    options.out_directory = (directory_ / ("out-" + std::to_string(runs_++))).string();
    options.tokenizer = tokenizer;
    options.source = "a test";
    options.threads = threads;
    summary_ = prepare(options);
    return slurp(fs::path(options.out_directory) / "manifest.json");
  }

  // The same shards, whatever `text` is wrapped in, in any number of threads.
  void expect_same(const std::string& name, const std::string& text, const std::string& tokenizer) {
    spill(directory_ / name, text);
    const std::string expected = manifest_of(name, tokenizer, 2);
    spill(directory_ / (name + ".gz"),
          gzip_of(text.substr(0, text.size() / 3)) + gzip_of(text.substr(text.size() / 3)));
    spill(directory_ / (name + ".zst"), zstd_of(text));
    for (const int threads : {1, 3})
      for (const std::string& packed : {name + ".gz", name + ".zst"}) {
        EXPECT_EQ(manifest_of(packed, tokenizer, threads), expected) << packed << " " << threads;
        EXPECT_EQ(summary_.bytes_total, fs::file_size(directory_ / packed));
        EXPECT_EQ(summary_.bytes_done, summary_.bytes_total) << packed;
      }
    for (const std::string& bytes : {text, gzip_of(text)}) {
      const FilledPipe pipe(directory_ / "pipe", bytes);
      EXPECT_EQ(manifest_of("pipe", tokenizer, 2), expected);
      EXPECT_EQ(summary_.bytes_total, 0u);
      EXPECT_EQ(summary_.bytes_done, bytes.size());
    }
  }

  const ScratchDir directory_;
  PrepareSummary summary_;
  int runs_ = 0;
};

TEST_F(Inputs, GiveTheSameShardsInEveryWrapping) {
  std::string lines, array = "\xEF\xBB\xBF[";
  for (int i = 0; lines.size() < 5u << 19; ++i) {
    const std::string object = "{\"text\": \"" +
                               std::string(static_cast<std::size_t>(i % 997), i % 3 == 0 ? ' ' : 'k') + " 日本 " +
                               std::to_string(i) + "\"}";
    lines += object + (i % 5 == 0 ? "\n\n" : "\n");
    array += (i > 0 ? ",\n " : " ") + object;
  }
  expect_same("a.jsonl", lines, "bytes");
  expect_same("b.json", array + "]\n", small_model_file());
}

// In parts of a MiB, with what an added token may look at across them.
TEST_F(Inputs, GiveTheSameTextInEveryWrapping) {
  const fs::path chat = directory_ / "chat";
  fs::create_directory(chat);
  spill(chat / "tokenizer.model", slurp(small_model_file()));
  spill(
      chat / "tokenizer_config.json",
      R"({"added_tokens_decoder": {"600": {"content": "<|im_end|>", "special": true, "lstrip": true, "rstrip": true}}})");
  std::string text = "\xEF\xBB\xBF";
  for (std::uint32_t seed = 0; text.size() < 5u << 19; ++seed)
    text += made_up_text(seed, 400) + std::string(seed % 40, ' ') + "<|im_end|>" + std::string(seed % 3, '\n');
  expect_same("a.txt", text, small_model_file());
  expect_same("b.txt", text, "bytes");
  expect_same("c.txt", text, chat.string());
  // A token that takes in a long run of blanks in front of it, and of which the second MiB that is read has the beginning alone.
  expect_same("d.txt", std::string((1 << 20) - 5, 'k') + std::string((1 << 20) + 1, ' ') + "<|im_end|> ka",
              chat.string());
  expect_same("e.txt", std::string(1 << 20, 'k'), "bytes");
  // A character in two parts.
  expect_same("g.txt", std::string((1 << 20) - 1, 'k') + "日本" + std::string(1 << 20, 'k'), "bytes");
  expect_same("f.txt", "\xEF\xBB\xBFx", "bytes");
}

TEST_F(Inputs, TellTheSamePlacesInEveryWrapping) {
  std::string text;
  while (text.size() < 5u << 19) text += "some words of a line\n";
  const auto line = std::count(text.begin(), text.end(), '\n');
  const std::size_t place = text.size();
  text += "caf\xE9\n";
  spill(directory_ / "a.txt", text);
  spill(directory_ / "a.txt.gz", gzip_of(text));
  for (const std::string name : {"a.txt", "a.txt.gz"})
    expect_refused([&] { manifest_of(name, "bytes", 2); }, {name + ":" + std::to_string(line + 1) + ": byte " +
                                                            std::to_string(place + 3) + " of the text is 0xE9"});
  std::string lines;
  for (int i = 0; i < 90'000; ++i) lines += "{\"text\": \"some words of a line\"}\n";
  lines += "{\"text\" \"?\"}\n";
  spill(directory_ / "b.jsonl.zst", zstd_of(lines));
  expect_refused([&] { manifest_of("b.jsonl.zst", "bytes", 2); }, {"b.jsonl.zst:90001:11: not valid JSON"});
  spill(directory_ / "c.json.gz", gzip_of("[{\"text\": \"a\"},\n {\"text\": \"b\"}"));
  expect_refused([&] { manifest_of("c.json.gz", "bytes", 2); }, {"c.json.gz:2:15: the array is never closed"});
}

// An object out of a stream has the limit that one of a file has, and takes no more memory than that.
TEST_F(Inputs, RefuseAnObjectBeyondTheLimit) {
  const std::string fine = "{\"text\": \"fine\"}\n", bomb = "{\"text\": \"" + std::string(80u << 20, 'x') + "\"}\n";
  spill(directory_ / "a.jsonl.zst", zstd_of(fine + bomb + fine));
  expect_refused([&] { manifest_of("a.jsonl.zst", "bytes", 1); }, {"a.jsonl.zst:2:1: an object of more than 64 MiB"});
  PrepareOptions options;
  options.inputs = {(directory_ / "a.jsonl.zst").string()};
  options.out_directory = (directory_ / "out").string();
  options.tokenizer = "bytes";
  options.skip_bad = 1;
  EXPECT_EQ(prepare(options).documents, 2);
  spill(directory_ / "b.json.zst", zstd_of("[" + fine + ", " + bomb + "]"));
  expect_refused([&] { manifest_of("b.json.zst", "bytes", 1); }, {"b.json.zst:2:3: ", "more than 64 MiB"});
}

TEST_F(Inputs, AreTakenForWhatTheyHold) {
  const auto format = [&](const std::string& name, const std::string& bytes) {
    spill(directory_ / name, bytes);
    return std::string(
        name_of(list_corpus_files({(directory_ / name).string()}, CorpusFormat::automatic).files.at(0).format));
  };
  const std::string line = "{\"text\": \"a\"}\n";
  EXPECT_EQ(format("a.jsonl.gz", gzip_of(line)), "jsonl");
  EXPECT_EQ(format("a.JSONL.GZ", gzip_of(line)), "jsonl");
  EXPECT_EQ(format("a.jsonl", zstd_of(line)), "jsonl") << "whatever its name";
  EXPECT_EQ(format("a.json.zst", zstd_of("[" + line + "]")), "json");
  EXPECT_EQ(format("a.txt.gz", gzip_of("words")), "text");
  EXPECT_EQ(format("a.gz", gzip_of("words")), "text");
  EXPECT_EQ(format("empty.jsonl.gz", gzip_of("")), "jsonl");
  EXPECT_EQ(format("long.json.gz", gzip_of("{\"text\": \"" + std::string(100'000, 'x') + "\"}\n" + line)), "jsonl");

  const auto refused = [&](const std::string& name, const std::string& bytes,
                           std::initializer_list<std::string_view> pieces) {
    spill(directory_ / name, bytes);
    expect_refused([&] { list_corpus_files({(directory_ / name).string()}, CorpusFormat::automatic); }, pieces);
  };
  std::string tar(1024, '\0');
  tar.replace(0, 5, "a.txt").replace(257, 5, "ustar");
  refused("a.tar.gz", gzip_of(tar),
          {"a.tar.gz is gzip-compressed, and what it holds is a tar archive", "tar -xf ", "a.tar.gz"});
  refused("a.tgz", gzip_of(tar), {"a.tgz is gzip-compressed, and what it holds is a tar archive"});
  refused("a.csv.zst", zstd_of("text,label\n"), {"a.csv.zst is compressed with zstd", "comma-separated", "zstdcat "});
  refused("a.npy.gz", gzip_of("\x93NUMPY..."), {"a.npy.gz is gzip-compressed", "read as npy", "zcat "});
  refused("a.jsonl.gz", gzip_of(line).substr(0, 15), {"a.jsonl.gz: byte 15 of the file: the gzip data end"});
  {
    const FilledPipe pipe(directory_ / "pipe", "\x93NUMPY...");
    expect_refused([&] { list_corpus_files({(directory_ / "pipe").string()}, CorpusFormat::automatic); },
                   {"pipe is read as npy, which is read in place", "into a file"});
  }
  spill(directory_ / "latin.txt.gz", gzip_of("caf\xE9"));
  EXPECT_EQ(list_corpus_files({(directory_ / "latin.txt.gz").string()}, CorpusFormat::text).files.at(0).compression,
            Compression::gzip)
      << "any bytes, but unpacked";
  EXPECT_EQ(describe_inputs({"x/web.jsonl.gz", "b"}), "web and 1 more");
  EXPECT_EQ(describe_inputs({"-"}), "standard input");
  expect_refused([] { list_corpus_files({"-", "-"}, CorpusFormat::automatic); }, {"- is named twice"});
}

TEST_F(Inputs, PassOverAFewBadDocuments) {
  std::string lines;
  for (int i = 1; i <= 60'000; ++i)  // several batches
    lines += i % 5'000 == 0 ? "{\"text\": 7}\n" : i == 7 ? "no JSON\n" : "{\"text\": \"some words of a line\"}\n";
  spill(directory_ / "a.jsonl", lines);
  PrepareOptions options;
  options.inputs = {(directory_ / "a.jsonl").string()};
  options.tokenizer = "bytes";
  for (const int threads : {1, 4}) {
    options.out_directory = (directory_ / ("out" + std::to_string(threads))).string();
    options.threads = threads;
    options.skip_bad = 13;
    std::vector<std::string> told;
    options.on_bad = [&](const std::string& message) { told.push_back(message); };
    const PrepareSummary summary = prepare(options);
    EXPECT_EQ(summary.documents, 60'000 - 13);
    EXPECT_EQ(summary.bad_documents, 13);
    ASSERT_EQ(told.size(), 10u);
    mentions(told[0], {"a.jsonl:7:2: not valid JSON"});
    mentions(told[1], {"a.jsonl:5000:1: \"text\": found 7"});
    mentions(told[9], {"a.jsonl:45000:1"});
    options.out_directory = (directory_ / "none").string();
    options.skip_bad = 12;
    expect_refused([&] { prepare(options); },
                   {"a.jsonl:60000:1: \"text\": found 7", "bad document number 13, and --skip-bad allows 12"});
    options.skip_bad = 0;
    expect_refused([&] { prepare(options); }, {"a.jsonl:7:2: not valid JSON"});
    EXPECT_FALSE(fs::exists(options.out_directory));
  }
  spill(directory_ / "b.json", "[{\"text\": \"a\"}, {\"text\": 7},\n {\"x\": 1}, {\"text\": \"b\"}");
  options.inputs = {(directory_ / "b.json").string()};
  options.skip_bad = 5;
  expect_refused([&] { prepare(options); }, {"b.json:2:25: the array is never closed"});
}

TEST_F(Inputs, TeachAVocabularyTheSameInEveryWrapping) {
  const std::string text = made_up_text(2, 5000);
  spill(directory_ / "a.txt", text);
  spill(directory_ / "b.txt.gz", gzip_of(text));
  const auto trained = [&](const std::string& input) {
    return train_tokenizer({.inputs = {(directory_ / input).string()},
                            .vocab_size = 400,
                            .out_directory = (directory_ / (input + "-out")).string(),
                            .skip_bad = 1,
                            .sample_bytes = 40000});
  };
  const auto plain = trained("a.txt"), packed = trained("b.txt.gz");
  EXPECT_EQ(packed.sha256, plain.sha256);
  EXPECT_EQ(packed.corpus_bytes, text.size());
  EXPECT_EQ(packed.lines, plain.lines);
  {
    const FilledPipe pipe(directory_ / "pipe", text);
    EXPECT_EQ(trained("pipe").sha256, plain.sha256);
  }
  std::string lines;
  for (std::uint32_t seed = 0; seed < 500; ++seed) lines += dump_json(Json{{"text", made_up_text(seed, 10)}}) + "\n";
  spill(directory_ / "c.jsonl", "?\n" + lines);
  EXPECT_EQ(trained("c.jsonl").bad_documents, 1);
  spill(directory_ / "d.jsonl", "?\n" + lines + "?");
  expect_refused([&] { trained("d.jsonl"); }, {"d.jsonl:502:1", "--skip-bad allows 1"});
}

TEST_F(Inputs, ByPatternAreSortedAndEachOnce) {
  for (const char* name : {"x/b/c", "x/.hidden", "y"}) fs::create_directories(directory_ / name);
  for (const char* name : {"x/2.jsonl", "x/1.jsonl", "x/b/3.jsonl", "x/b/c/4.jsonl", "x/b/c/5.txt", "x/.hidden/6.jsonl",
                           "y/7.jsonl", "x/[z].jsonl"})
    spill(directory_ / name, "{\"text\": \"a\"}");
  const auto found = [&](const std::string& pattern) {
    std::string names;
    for (const fs::path& path : expand_pattern((directory_ / pattern).string()))
      names += path.filename().string() + " ";
    return names;
  };
  EXPECT_EQ(found("x/*.jsonl"), "1.jsonl 2.jsonl [z].jsonl ");
  EXPECT_EQ(found("x/[0-9].jsonl"), "1.jsonl 2.jsonl ");
  EXPECT_EQ(found("x/?.json?"), "1.jsonl 2.jsonl ");
  EXPECT_EQ(found("?/7*"), "7.jsonl ");
  EXPECT_EQ(found("x/**/*.jsonl"), "1.jsonl 2.jsonl [z].jsonl 3.jsonl 4.jsonl ");
  EXPECT_EQ(found("**/*.txt"), "5.txt ");
  EXPECT_EQ(found("**/b/**/**/c/*"), "4.jsonl 5.txt ");
  EXPECT_EQ(found("x/.h*/*"), "6.jsonl ");
  EXPECT_EQ(found("x/b*"), "b ");
  EXPECT_EQ(found("x/**"), "1.jsonl 2.jsonl [z].jsonl 3.jsonl 4.jsonl 5.txt ");
  EXPECT_EQ(found("x/**/c/**"), "4.jsonl 5.txt ");
  EXPECT_EQ(found("z*"), "");
  const auto listed = [&](const std::string& pattern) {
    return list_corpus_files({(directory_ / pattern).string()}, CorpusFormat::automatic).files.size();
  };
  EXPECT_EQ(listed("x/**/*.jsonl"), 5u);
  EXPECT_EQ(listed("x/**"), 6u);
  EXPECT_EQ(listed("x/b*"), 3u) << "a directory stands for what is below it";
  EXPECT_EQ(listed("x/[z].jsonl"), 1u) << "a file of that very name comes first";
  expect_refused([&] { listed("x/*.gz"); }, {"x/*.gz", "matches no file"});
}

// Nobody has named them: a pipe is not waited for, and what is no file is told and counted.
TEST_F(Inputs, PipesAndLinksToNothingAmongFilesArePassedOver) {
  fs::create_directories(directory_ / "x/sub");
  spill(directory_ / "x/1.txt", "words");
  fs::create_symlink("1.txt", directory_ / "x/2.txt");
  fs::create_symlink("nowhere", directory_ / "x/3.txt");
  fs::create_symlink("gone", directory_ / "x/sub/4.txt");
  fs::create_directory_symlink("sub", directory_ / "x/linked");
  ASSERT_EQ(::mkfifo((directory_ / "x/pipe.txt").c_str(), 0600), 0);
  for (const std::string& input : {std::string("x"), std::string("x/*"), std::string("x/**"), std::string("x/*.txt")}) {
    // The link is the file again, which would be named twice.
    expect_refused([&] { list_corpus_files({(directory_ / input).string()}, CorpusFormat::automatic); },
                   {"2.txt is named twice"});
  }
  fs::remove(directory_ / "x/2.txt");
  const auto passed_over = [&](const std::string& input) {
    const CorpusFiles corpus = list_corpus_files({(directory_ / input).string()}, CorpusFormat::automatic);
    EXPECT_EQ(corpus.files.size(), 1u) << input;
    std::map<std::string, std::int64_t> counts;
    for (const PassedOver& kind : corpus.passed_over) counts[kind.kind] = kind.files;
    return counts;
  };
  using Counts = std::map<std::string, std::int64_t>;
  const std::string nothing = "a link to nothing", pipe = "a pipe, a socket or a device",
                    linked = "a link to a directory, which is not followed";
  EXPECT_EQ(passed_over("x"), (Counts{{nothing, 2}, {pipe, 1}, {linked, 1}}));
  EXPECT_EQ(passed_over("x/**"), (Counts{{nothing, 2}, {pipe, 1}}));
  EXPECT_EQ(passed_over("x/*.txt"), (Counts{{nothing, 1}, {pipe, 1}}));
  expect_refused([&] { list_corpus_files({(directory_ / "x/3*").string()}, CorpusFormat::automatic); },
                 {"holds no file to read", "a link to nothing"});
}

}  // namespace
}  // namespace smoe
