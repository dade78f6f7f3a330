// Parquet tables as prepare takes them, in builds that have Apache Arrow, and what other builds say of them.
#include "data/import/parquet.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/import/prepare.h"
#include "data/import/text_lines.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
using Rows = std::vector<std::string>;

const std::filesystem::path tables = std::filesystem::path(SMOE_SOURCE_DIR) / "tests" / "data" / "parquet";

// Each row, as its text or as what is wrong with it.
Rows rows_of(const std::string& name, const std::string& field = "text", std::size_t bytes = 1 << 20) {
  const std::uint64_t file_bytes = std::filesystem::file_size(tables / name);
  const auto input = open_parquet({tables / name, CorpusFormat::parquet, file_bytes}, field);
  Rows all;
  std::uint64_t read = 0;
  for (ParquetRows rows; input->next(bytes, rows);) {
    EXPECT_EQ(rows.first_row, static_cast<std::int64_t>(all.size()));
    for (std::size_t i = 0; i < rows.texts.size(); ++i) all.push_back(rows.faults[i] ? "null" : rows.texts[i]);
    read += rows.bytes;
  }
  EXPECT_EQ(read, file_bytes);
  return all;
}

class Parquet : public testing::Test {
 protected:
  void SetUp() override {
    if (!parquet_is_available()) GTEST_SKIP() << "this build has no Apache Arrow (docs/installing.md)";
  }
};

TEST_F(Parquet, RowsAreDocuments) {
  const Rows texts{"one", "two\nlines", "", "hé", "null", "six"};
  for (const std::size_t bytes : {1, 1 << 20}) {
    EXPECT_EQ(rows_of("texts.parquet", "text", bytes), texts);
    EXPECT_EQ(rows_of("large.parquet", "text", bytes), texts);
  }
  EXPECT_EQ(rows_of("categories.parquet"), (Rows{"a", "b", "a", "null"}));
  EXPECT_EQ(rows_of("nested.parquet", "meta.body"), (Rows{"in", "null", "null", "side"}));
  EXPECT_EQ(rows_of("empty.parquet"), Rows());
}

TEST_F(Parquet, IsPreparedAndLearnedFrom) {
  const ScratchDir directory;
  PrepareOptions options;
  options.inputs = {(tables / "texts.parquet").string()};
  options.tokenizer = "bytes";
  options.out_directory = (directory / "out").string();
  expect_refused([&] { prepare(options); }, {"texts.parquet: row 4: its text is null"});
  options.skip_bad = 1;
  const PrepareSummary summary = prepare(options);
  EXPECT_EQ(summary.documents, 4);
  EXPECT_EQ(summary.empty_documents, 1);
  EXPECT_EQ(summary.bad_documents, 1);
  EXPECT_EQ(summary.bytes_done, summary.bytes_total);

  const CorpusFiles corpus = list_corpus_files(options.inputs, CorpusFormat::automatic);
  BadDocuments bad(1);
  TextLines lines(corpus.files, "text", &bad);
  Rows found;
  while (const auto line = lines.next()) found.emplace_back(*line);
  EXPECT_EQ(found, (Rows{"one", "two", "lines", "hé", "six"}));
}

TEST_F(Parquet, RefusesWhatHasNoTexts) {
  expect_refused([] { rows_of("texts.parquet", "body"); },
                 {"texts.parquet: has no column \"body\"; it has \"id\", \"text\"", "--text-field"});
  expect_refused([] { rows_of("numbers.parquet"); }, {"the column \"text\" is of the type int64, expected strings"});
  expect_refused([] { rows_of("lists.parquet", "text.list.element"); }, {"of the type list"});
  const ScratchDir directory;
  const std::string whole = slurp(tables / "texts.parquet");
  for (const std::size_t size : {std::size_t{4}, std::size_t{100}, whole.size() - 1}) {
    spill(directory / "a.parquet", whole.substr(0, size));
    expect_refused(
        [&] {
          open_parquet({directory / "a.parquet", CorpusFormat::parquet, size}, "text");
        },
        {"a.parquet: cannot be read as Parquet: "});
  }
}

// Every byte damaged in turn: read, or refused, and nothing else.
TEST_F(Parquet, SurvivesDamage) {
  const ScratchDir directory;
  const std::string whole = slurp(tables / "texts.parquet");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    spill(directory / "a.parquet", damaged);
    try {
      const auto input = open_parquet({directory / "a.parquet", CorpusFormat::parquet, whole.size()}, "text");
      for (ParquetRows rows; input->next(1 << 20, rows);) {
      }
    } catch (const std::runtime_error&) {
    }
  }
}

TEST(NoParquet, SaysWhatToDo) {
  if (parquet_is_available()) GTEST_SKIP() << "this build has Apache Arrow";
  const std::vector<std::string> input{(tables / "texts.parquet").string()};
  expect_refused([&] { list_corpus_files(input, CorpusFormat::automatic); },
                 {"texts.parquet is an Apache Parquet table", "read_parquet"});
  expect_refused(
      [&] {
        open_parquet({input[0], CorpusFormat::parquet}, "text");
      },
      {"texts.parquet: Parquet is not available in this build", "docs/installing.md", "read_parquet"});
}

}  // namespace
}  // namespace smoe
