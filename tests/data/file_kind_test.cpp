// What prepare takes files for, and what it refuses by name.
#include "data/import/file_kind.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <string_view>

#include "data/import/corpus_files.h"
#include "data/import/parquet.h"
#include "tests/data/megatron_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace std::string_view_literals;
using namespace test;

struct KindCase {
  const char* test;
  const char* name;
  std::string_view bytes;
  const char* kind;
  const char* advice;
  bool holds_documents;
};

void PrintTo(const KindCase& c, std::ostream* out) { *out << c.test; }

class ForeignKind : public testing::TestWithParam<KindCase> {};

// Named, a file of another kind is refused; in a directory one that wraps documents is too, and another is passed over.
TEST_P(ForeignKind, IsRefusedByNameWithAdvice) {
  const KindCase& c = GetParam();
  if (std::string_view(c.kind) == "Parquet" && parquet_is_available()) GTEST_SKIP() << "this build reads them";
  const ScratchDir directory;
  spill(directory / c.name, c.bytes);
  const std::string path = (directory / c.name).string();
  expect_refused([&] { list_corpus_files({path}, CorpusFormat::automatic); }, {path + " is ", c.kind, c.advice});
  spill(directory / "fine.txt", "fine");
  const auto list = [&] { return list_corpus_files({directory.path().string()}, CorpusFormat::automatic); };
  if (c.holds_documents) {
    expect_refused(list, {path + " is ", c.kind, c.advice});
  } else {
    const CorpusFiles corpus = list();
    ASSERT_EQ(corpus.files.size(), 1u);
    ASSERT_EQ(corpus.passed_over.size(), 1u);
    EXPECT_EQ(corpus.passed_over[0].first, path);
    EXPECT_NE(corpus.passed_over[0].kind.find(c.kind), std::string::npos) << corpus.passed_over[0].kind;
  }
  EXPECT_EQ(list_corpus_files({path}, CorpusFormat::text).files.at(0).format, CorpusFormat::text);
}

INSTANTIATE_TEST_SUITE_P(
    , ForeignKind,
    testing::Values(
        KindCase{"text_named_gz", "f.jsonl.gz", "{}"sv, "not what its name says (.gz)", "complete", true},
        KindCase{"text_named_zst", "F.ZST", "text"sv, "not what its name says (.zst)", "complete", true},
        KindCase{"compress", "f.Z", "\x1F\x9D\x90"sv, "compressed", "zcat", true},
        KindCase{"xz", "f.xz",
                 "\xFD"
                 "7zXZ\0"sv,
                 "compressed with xz", "xzcat", true},
        KindCase{"bzip2", "f.bz2", "BZh91AY&SY\x01\xFF"sv, "compressed with bzip2", "bzcat", true},
        KindCase{"zip", "f.zip", "PK\3\4\0\0"sv, "a zip archive", "unzip", true},
        KindCase{"parquet", "f.parquet", "PAR1\x15\0\x15PAR1"sv, "Parquet", "read_parquet", true},
        KindCase{"parquet_without_a_name", "part-0", "PAR1abcPAR1"sv, "Parquet", "part-0.jsonl", true},
        KindCase{"arrow", "f.arrow", "ARROW1\0\0"sv, "Arrow", "read_feather", true},
        KindCase{"arrow_stream", "data-00000.arrow", "\xFF\xFF\xFF\xFF\x10\0\0\0"sv, "Arrow stream",
                 "Dataset.from_file", true},
        KindCase{"feather", "f.feather", "FEA1\0"sv, "Feather", "read_feather", true},
        KindCase{"excel", "f.xlsx", "PK\3\4\0\0"sv, "an Excel workbook", "read_excel", true},
        KindCase{"numpy_archive", "f.npz", "PK\3\4\0\0"sv, "a NumPy archive", "numpy.save", true},
        KindCase{"csv", "F.CSV", "text,label\nx,1\n"sv, "comma-separated", "read_csv", true},
        KindCase{"tsv", "f.tsv", "text\tlabel\n"sv, "tab-separated", "sep='\\t'", true},
        KindCase{"utf16", "f.txt", "\xFF\xFEh\0i\0"sv, "UTF-16 text", "iconv -f UTF-16", true},
        KindCase{"utf16_big_endian", "f.txt", "\xFE\xFF\0h\0i"sv, "UTF-16 text", "iconv", true},
        KindCase{"utf16_without_mark", "f.jsonl", "{\0\"\0t\0e\0x\0t\0\"\0"sv, "UTF-16 text without",
                 "iconv -f UTF-16LE", true},
        KindCase{"utf16_without_mark_big_endian", "f.jsonl", "\0{\0\"\0t\0e\0x\0t\0\""sv, "UTF-16 text without",
                 "iconv -f UTF-16BE", true},
        KindCase{"lzma", "f.lzma", "\x5D\0\0\x80\0\xFF"sv, "compressed with lzma", "lzcat", true},
        KindCase{"git_lfs_pointer", "f.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"sv,
                 "Git LFS", "git lfs pull", true},
        KindCase{"text_named_parquet", "f.parquet", "no table"sv, "not what its name says", "complete", true},
        KindCase{"text_named_json", "f.json", "hello"sv, "begins with \"h\"", "--format text", true},
        KindCase{"bin_without_idx", "f.bin", "\1\0\2\0"sv, "half of a Megatron dataset", "f.idx", true},
        KindCase{"text_bin_without_idx", "f.bin", "text"sv, "half of a Megatron dataset", "--format u16", true},
        KindCase{"idx_without_bin", "f.idx", "MMIDIDX\0\0"sv, "the index of a Megatron dataset without its ids",
                 "f.bin", true},
        KindCase{"pickle", "f.pkl", "\x80\4\x95\0"sv, "a Python pickle", "numpy.save", false},
        KindCase{"pytorch", "pytorch_model.bin", "PK\3\4\0\0"sv, "a PyTorch file", "numpy.save", false},
        KindCase{"safetensors", "f.safetensors", "\2\0\0\0\0\0\0\0{}"sv, "a safetensors file", "numpy.save", false},
        KindCase{"pdf", "f.pdf", "%PDF-1.7\n"sv, "a PDF document", "pdftotext", false},
        KindCase{"png", "f.png", "\x89PNG\r\n\x1A\n\0"sv, "a PNG image", "no text", false},
        KindCase{"jpeg", "f.JPG", "\xFF\xD8\xFF\xE0"sv, "a JPEG image", "no text", false},
        KindCase{"program", "f",
                 "\x7F"
                 "ELF\2\1\1\0"sv,
                 "a program", "no text", false},
        KindCase{"zero_bytes", "f.txt", "text\0more"sv, "binary (.txt)", "byte 4 is 0", false}),
    [](const auto& info) { return info.param.test; });

TEST(CorpusFormats, GoByContentAndNameInAnyCase) {
  const ScratchDir directory;
  const auto format = [&](const std::string& name, std::string_view bytes) {
    spill(directory / name, bytes);
    return std::string(
        name_of(list_corpus_files({(directory / name).string()}, CorpusFormat::automatic).files.at(0).format));
  };
  const std::string line = "{\"text\": \"a\"}";
  EXPECT_EQ(format("a.JSONL", line), "jsonl");
  EXPECT_EQ(format("a.NdJson", line), "jsonl");
  EXPECT_EQ(format("a.jl", line), "jsonl");
  EXPECT_EQ(format("a.NPY", ""), "npy");
  EXPECT_EQ(format("lines.json", line + "\n" + line + "\n"), "jsonl");
  EXPECT_EQ(format("nan.json", "{\"text\": \"a\", \"x\": NaN}\n"), "jsonl");
  EXPECT_EQ(format("one.JSON", line), "jsonl");
  EXPECT_EQ(format("marked.json", "\xEF\xBB\xBF" + line), "jsonl");
  EXPECT_EQ(format("pretty.json", "{\n \"text\": \"a\"\n}"), "json");
  EXPECT_EQ(format("array.json", " \n[" + line + "]"), "json");
  EXPECT_EQ(format("array.jsonl", "[" + line + "]"), "json");
  EXPECT_EQ(format("array", "[ {\n \"text\": 1}]"), "json");
  EXPECT_EQ(format("empty.json", ""), "jsonl");
  EXPECT_EQ(format("part-00000", line + "\n" + line), "jsonl");
  EXPECT_EQ(format("lines.txt", line + "\n" + line), "jsonl");
  EXPECT_EQ(format("code.txt", "{ not JSON }\n"), "text");
  EXPECT_EQ(format("list.txt", "[1] A list\n"), "text");
  EXPECT_EQ(format("no-name", "words"), "text");
  EXPECT_EQ(format("latin.md", "caf\xE9"), "text");  // refused where it is read: with the byte's place
  EXPECT_EQ(format("id3.txt", "ID3 is a tag, GGUF a format"), "text");
  spill(directory / "long.json", "{\"text\": \"" + std::string(100000, 'x') + "\"}\n" + line);
  EXPECT_EQ(list_corpus_files({(directory / "long.json").string()}, CorpusFormat::automatic).files[0].format,
            CorpusFormat::jsonl);
}

// As a shell's pattern names it: prepare pair.*
TEST(CorpusFormats, APairNamedByBothHalvesCountsOnce) {
  const ScratchDir directory;
  write_megatron(directory / "pair", 8, {{1, 2}, {3}});
  write_megatron(directory / "LOUD", 8, {{4}});
  std::filesystem::rename(directory / "LOUD.bin", directory / "LOUD.BIN");
  std::filesystem::rename(directory / "LOUD.idx", directory / "LOUD.IDX");
  const auto files = [&](std::vector<std::string> names) {
    for (std::string& name : names) name = (directory / name).string();
    return list_corpus_files(names, CorpusFormat::automatic).files;
  };
  EXPECT_EQ(files({"pair.bin", "pair.idx"}).size(), 1u);
  ASSERT_EQ(files({"LOUD.BIN", "LOUD.IDX"}).size(), 1u);
  EXPECT_EQ(files({"LOUD"}).at(0).path.filename(), "LOUD.IDX");
  EXPECT_EQ(list_corpus_files({directory.path().string()}, CorpusFormat::automatic).files.size(), 2u);
}

TEST(CorpusFormats, AFileNamedTwiceIsRefused) {
  const ScratchDir directory;
  spill(directory / "a.txt", "a");
  const std::string file = (directory / "a.txt").string(), above = directory.path().string();
  expect_refused([&] { list_corpus_files({file, file}, CorpusFormat::automatic); }, {"a.txt is named twice"});
  expect_refused([&] { list_corpus_files({above, file}, CorpusFormat::text); }, {"a.txt is named twice"});
}

TEST(CorpusFormats, AFormatThatIsGivenDecides) {
  const ScratchDir directory;
  spill(directory / "a.csv", "{\"text\": \"a\"}");
  spill(directory / "b.bin", "{\"text\": \"b\"}");
  for (const CorpusFormat format : {CorpusFormat::jsonl, CorpusFormat::json, CorpusFormat::text}) {
    const CorpusFiles corpus = list_corpus_files({directory.path().string()}, format);
    ASSERT_EQ(corpus.files.size(), 2u);
    EXPECT_EQ(corpus.files[0].format, format);
  }
  spill(directory / "c.jsonl", "BZh91AY&SY\x01\xFF"sv);
  expect_refused([&] { list_corpus_files({directory.path().string()}, CorpusFormat::jsonl); },
                 {"c.jsonl is compressed with bzip2", "bzcat"});
  spill(directory / "c.jsonl", "\x89HDF\r\n\x1A\n"sv);
  expect_refused([&] { list_corpus_files({directory.path().string()}, CorpusFormat::jsonl); },
                 {"c.jsonl is an HDF5 file", "--format hdf5"});
}

TEST(CorpusFormats, ADirectoryNamesTheFirstOfManyThatItCannotRead) {
  const ScratchDir directory;
  for (int i = 0; i < 9; ++i) spill(directory / ("f" + std::to_string(i) + ".parquet"), "PAR1\0PAR1"sv);
  expect_refused([&] { list_corpus_files({directory.path().string()}, CorpusFormat::automatic); },
                 {"f0.parquet", "f1.parquet", "f2.parquet", "and 6 more files"});
}

TEST(CorpusFormats, MegatronPairsAreFoundInADirectoryAndHalvesAreNot) {
  const ScratchDir directory;
  write_megatron(directory / "pair", 8, {{1, 2}, {3}});
  EXPECT_EQ(list_corpus_files({directory.path().string()}, CorpusFormat::automatic).files.size(), 1u);
  std::filesystem::remove(directory / "pair.bin");
  expect_refused([&] { list_corpus_files({directory.path().string()}, CorpusFormat::automatic); },
                 {"pair.idx", "without its ids"});
  expect_refused([&] { list_corpus_files({(directory / "pair").string()}, CorpusFormat::automatic); }, {"pair"});
}

}  // namespace
}  // namespace smoe
