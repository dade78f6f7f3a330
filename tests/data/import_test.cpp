#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/import/bad_documents.h"
#include "data/import/corpus_files.h"
#include "data/import/import_jsonl.h"
#include "data/import/import_megatron.h"
#include "data/import/text_field.h"
#include "data/files/json.h"
#include "tests/data/megatron_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;

std::vector<std::string> names_of(const CorpusFiles& corpus) {
  std::vector<std::string> names;
  for (const CorpusFile& file : corpus.files)
    names.push_back(file.path.filename().string() + ":" + name_of(file.format));
  return names;
}

TEST(CorpusFiles, TellsFormatsByNameAndMagic) {
  const ScratchDir directory;
  spill(directory / "a.txt", "text");
  spill(directory / "b.jsonl", "{}");
  spill(directory / "c.ndjson", "{}");
  spill(directory / "d.npy", "");
  spill(directory / "e.data", "\x93NUMPY...");
  write_megatron(directory / "g", 8, {{1, 2}, {3}});
  const auto format = [&](const std::string& name) {
    return list_corpus_files({(directory / name).string()}, CorpusFormat::automatic).files.at(0).format;
  };
  EXPECT_EQ(format("a.txt"), CorpusFormat::text);
  EXPECT_EQ(format("b.jsonl"), CorpusFormat::jsonl);
  EXPECT_EQ(format("c.ndjson"), CorpusFormat::jsonl);
  EXPECT_EQ(format("d.npy"), CorpusFormat::npy);
  EXPECT_EQ(format("e.data"), CorpusFormat::npy);
  for (const char* name : {"g", "g.bin", "g.idx"}) {
    EXPECT_EQ(format(name), CorpusFormat::megatron) << name;
    EXPECT_EQ(list_corpus_files({(directory / name).string()}, CorpusFormat::megatron).files.at(0).bytes, 6u);
  }
}

TEST(CorpusFiles, WalksADirectoryInOrder) {
  const ScratchDir directory;
  std::filesystem::create_directories(directory / "sub");
  std::filesystem::create_directories(directory / ".git");
  spill(directory / "z.txt", "z");
  spill(directory / "a.txt", "a");
  spill(directory / "sub" / "m.jsonl", "{}");
  spill(directory / ".git" / "config", "hidden");
  spill(directory / ".hidden", "hidden");
  spill(directory / "program", std::string("\x7F"
                                           "ELF\0\0",
                                           6));
  spill(directory / "sub" / "table.dat", std::string("\0\1", 2));
  spill(directory / "sub" / "another.dat", std::string("x\0", 2));
  write_megatron(directory / "ids", 4, {{1}});
  std::filesystem::create_symlink("nowhere", directory / "dangling");
  const CorpusFiles corpus = list_corpus_files({directory.path().string()}, CorpusFormat::automatic);
  EXPECT_EQ(names_of(corpus),
            (std::vector<std::string>{"a.txt:text", "ids.idx:megatron", "m.jsonl:jsonl", "z.txt:text"}));
  EXPECT_EQ(corpus.skipped_hidden, 2);
  ASSERT_EQ(corpus.passed_over.size(), 3u);
  EXPECT_EQ(corpus.passed_over[0].kind, "a link to nothing");
  EXPECT_EQ(corpus.passed_over[0].files, 1);
  EXPECT_EQ(corpus.passed_over[1].kind, "a program or library");
  EXPECT_EQ(corpus.passed_over[1].files, 1);
  EXPECT_EQ(corpus.passed_over[2].kind, "binary (.dat)");
  EXPECT_EQ(corpus.passed_over[2].files, 2);
  EXPECT_EQ(corpus.passed_over[2].first, directory / "sub" / "another.dat");
  EXPECT_EQ(names_of(list_corpus_files({directory.path().string()}, CorpusFormat::megatron)),
            std::vector<std::string>{"ids.idx:megatron"});
}

TEST(CorpusFiles, NamesASourceWithoutDirectories) {
  EXPECT_EQ(describe_inputs({"elsewhere/x/web.jsonl"}), "web");
  EXPECT_EQ(describe_inputs({"corpus/books/"}), "books");
  EXPECT_EQ(describe_inputs({"a.txt", "b.txt", "c.txt"}), "a and 2 more");
}

TEST(CorpusFilesBadInput, NamesWhatIsMissing) {
  const ScratchDir directory;
  const auto refused = [&](const std::string& name, CorpusFormat format,
                           std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { list_corpus_files({(directory / name).string()}, format); }, pieces);
  };
  refused("nowhere.txt", CorpusFormat::automatic, {"nowhere.txt", "No such file"});
  refused("nowhere", CorpusFormat::megatron, {"nowhere.bin", "No such file"});
  refused("", CorpusFormat::automatic, {directory.path().string(), "no file"});
  spill(directory / "x", std::string(4, '\0'));
  refused("", CorpusFormat::automatic, {"no file", "1 file passed over as binary", "x"});
  expect_refused([] { list_corpus_files({}, CorpusFormat::automatic); }, {"no input"});
  expect_refused([] { corpus_format_of("csv"); }, {"csv", "jsonl"});
}

// The next text of a batch, and where it stands; nothing where there is none left.
std::optional<std::string> next_text(JsonBatch& batch, const std::string& field = "text",
                                     std::string* place = nullptr) {
  Json object;
  std::string where;
  if (!batch.next(object, where)) return std::nullopt;
  if (place) *place = where;
  return TextField(field).of(object, where);
}

JsonBatch only_batch(const std::filesystem::path& path) {
  JsonlFile file({path, CorpusFormat::jsonl});
  JsonBatch batch;
  EXPECT_TRUE(file.next(1 << 20, batch));
  return batch;
}

TEST(Jsonl, GivesWholeLinesAndTheirNumbers) {
  const ScratchDir directory;
  std::string text;
  for (int i = 0; i < 50; ++i) text += "{\"text\": \"" + std::string(static_cast<std::size_t>(i), 'x') + "\"}\n\n";
  text += "{\"text\": \"last\"}";
  spill(directory / "a.jsonl", text);
  for (const std::size_t bytes : {1, 7, 100, 100000}) {
    JsonlFile file({directory / "a.jsonl", CorpusFormat::jsonl});
    JsonBatch batch;
    std::uint64_t read = 0;
    std::vector<std::string> documents, places;
    while (file.next(bytes, batch)) {
      read += batch.bytes;
      std::string place;
      while (const auto document = next_text(batch, "text", &place)) {
        documents.push_back(*document);
        places.push_back(std::filesystem::path(place).filename());
      }
    }
    EXPECT_EQ(read, text.size());
    ASSERT_EQ(documents.size(), 51u);
    EXPECT_EQ(documents[9], std::string(9, 'x'));
    EXPECT_EQ(places[9], "a.jsonl:19:1");
    EXPECT_EQ(documents[50], "last");
    EXPECT_EQ(places[50], "a.jsonl:101:1");
  }
}

TEST(JsonlBadInput, NamesFileLineAndColumn) {
  const ScratchDir directory;
  const auto refused = [&](const std::string& second_line, std::initializer_list<std::string_view> pieces) {
    spill(directory / "a.jsonl", "{\"text\": \"fine\"}\n" + second_line + "\n{\"text\": \"third\"}\n");
    JsonBatch batch = only_batch(directory / "a.jsonl");
    ASSERT_EQ(next_text(batch), "fine");
    expect_refused([&] { next_text(batch); }, pieces);
    EXPECT_EQ(next_text(batch), "third") << "it goes on behind what it refused";
  };
  refused("{\"text\": ", {"a.jsonl:2:10: not valid JSON"});
  refused("{\"text\": 7}", {"a.jsonl:2:1: \"text\": found 7"});
  refused("  {\"text\": 7}", {"a.jsonl:2:3: \"text\": found 7"});
  refused("{\"body\": \"x\", \"id\": 1}",
          {"a.jsonl:2:1: the key \"text\" is missing", "has \"body\", \"id\"", "--text-field"});
  refused("{}", {"a.jsonl:2:1: the key \"text\" is missing", "no key"});
  refused("[1]", {"a.jsonl:2:1: found an array, expected an object"});
  refused("{\"text\": \"a\", \"text\": \"b\"}", {"a.jsonl:2:21: the key \"text\" appears twice"});
  refused("{\"text\": \"\xFF\"}", {"a.jsonl:2:11"});
  for (const std::string value : {"NaN", "Infinity", "-Infinity"})
    refused("{\"text\": " + value + "}", {"a.jsonl:2:1: \"text\": found " + value + ", expected a string"});
  refused("{\"text\": NaNs}", {"a.jsonl:2:10"});
  refused("{\"text\": \"a\", \"x\": nan}", {"a.jsonl:2:21"});
}

// As Python's json.dumps writes a score that is not a number.
TEST(Jsonl, NonFiniteNumbersBesideTheTextAreNoError) {
  const ScratchDir directory;
  spill(directory / "a.jsonl",
        "{\"text\": \"abc\", \"score\": NaN}\n"
        "{\"score\": [NaN, -Infinity, {\"x\": Infinity}], \"text\": \"NaN \\\"Infinity\", \"z\": 1.5}");
  JsonBatch batch = only_batch(directory / "a.jsonl");
  EXPECT_EQ(next_text(batch), "abc");
  EXPECT_EQ(next_text(batch), "NaN \"Infinity");
}

TEST(TextField, IsAKeyOrAPathIntoNestedObjects) {
  const auto text = [](const std::string& field, const std::string& object) {
    return TextField(field).of(parse_json(object, "f"), "f:1:1");
  };
  EXPECT_EQ(text("a.b", R"({"a": {"b": "inner"}})"), "inner");
  EXPECT_EQ(text("a.b", R"({"a": {"b": "inner"}, "a.b": "literal"})"), "literal");
  EXPECT_EQ(text("a.b.c", R"({"a": {"b": {"c": ""}}})"), "");
  EXPECT_EQ(text("", R"({"": "nameless"})"), "nameless");
  EXPECT_EQ(text(".", R"({"": {"": "deeper"}})"), "deeper");
  const auto refused = [&](const std::string& object, std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { text("a.b", object); }, pieces);
  };
  refused(R"({"a": 7})", {"f:1:1: \"a\": found 7, expected an object"});
  refused(R"({"a": "b"})", {"f:1:1: \"a\": found the string \"b\", expected an object"});
  refused(R"({"a": {"c": 1}})", {"f:1:1: \"a\": the key \"b\" is missing", "has \"c\"", "--text-field"});
  refused(R"({"b": 1})", {"f:1:1: the key \"a\" is missing, expected an object", "has \"b\""});
  refused(R"({"a": {"b": {}}})", {"f:1:1: \"a\": \"b\": found an object, expected a string"});
  refused(R"({"a": {"b": "x"}, "a.b": 7})", {"\"a.b\": found 7, expected a string"});
}

TEST(BadDocuments, AreToldCountedAndLimited) {
  std::vector<std::string> told;
  BadDocuments some(12, [&](const std::string& message) { told.push_back(message); });
  for (int i = 1; i <= 12; ++i) some.add("f:" + std::to_string(i));
  EXPECT_EQ(some.count(), 12);
  EXPECT_EQ(told.size(), 10u);
  EXPECT_EQ(told.back(), "f:10");
  expect_refused([&] { some.add("f:13"); }, {"f:13; this is bad document number 13, and --skip-bad allows 12"});
  const test::ScratchDir scratch;
  for (const int count : {10, 12}) {
    BadDocuments listed(20, {}, scratch.path());
    for (int i = 1; i <= count; ++i) listed.add("f:" + std::to_string(i) + (i == 2 ? ":\x1b" : ""));
    EXPECT_EQ(scratch.entries(), count == 10 ? 0u : 1u);  // under another name
    EXPECT_EQ(listed.commit_list().empty(), count == 10);
  }
  EXPECT_EQ(test::slurp(scratch / "skipped.txt"),
            "f:1\nf:2:\\x1b\nf:3\nf:4\nf:5\nf:6\nf:7\nf:8\nf:9\nf:10\nf:11\nf:12\n");
  BadDocuments none(0);
  EXPECT_EQ(message_of([&] { none.add("f:1"); }), "f:1");
}

// All documents of a JSON file, taken `bytes` at a time, and the bytes that they stand for.
std::vector<std::string> json_documents(const std::filesystem::path& path, std::size_t bytes) {
  JsonFile file({path, CorpusFormat::json});
  JsonBatch batch;
  std::vector<std::string> documents;
  std::uint64_t read = 0;
  while (file.next(bytes, batch)) {
    read += batch.bytes;
    while (const auto document = next_text(batch)) documents.push_back(*document);
  }
  EXPECT_EQ(read, std::filesystem::file_size(path));
  return documents;
}

TEST(JsonFile, TakesArraysAndObjectsHoweverTheyAreBrokenIntoLines) {
  const ScratchDir directory;
  const std::vector<std::string> expected{"one", "}] \" [{", "", "three"};
  const std::string one = R"({"text": "one", "x": [{"a": "\\"}, []]})",
                    two = "{\n \"y\": {},\n \"text\": \"}] \\\" [{\"\n}", empty = R"({"text": ""})",
                    three = R"({"text":"three"})";
  spill(directory / "array.json", "\n [ " + one + ",\n" + two + " , " + empty + "," + three + "\n]\n\n");
  spill(directory / "tight.json", "[" + one + "," + two + "," + empty + "," + three + "]");
  spill(directory / "lines.json", one + "\n" + two + "\n\n" + empty + three);
  spill(directory / "marked.json", "\xEF\xBB\xBF[" + one + "," + two + "," + empty + "," + three + "]");
  for (const char* name : {"array.json", "tight.json", "lines.json", "marked.json"})
    for (const std::size_t bytes : {1, 40, 100000})
      EXPECT_EQ(json_documents(directory / name, bytes), expected) << name << " " << bytes;
}

// An array is cut into objects without being parsed: it must be taken, and refused, exactly where a parser of the whole does.
TEST(JsonFile, AgreesWithAParserOfTheWholeArray) {
  const ScratchDir directory;
  const std::string whole = R"([{"text": "a\"]"}, {"x": [1, {"y": "\\"}], "text": ""} ,{"text":"{[,"}])";
  const std::string_view alphabet = "[]{}\",:\\ \nab1";
  std::mt19937 random(7);
  int taken = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = whole;
    for (unsigned changes = random() % 3; changes > 0; --changes) {
      const std::size_t at = 1 + random() % (text.size() - 1);
      const char c = alphabet[random() % alphabet.size()];
      if (random() % 3 == 0)
        text.erase(at, 1);
      else if (random() % 2 == 0)
        text.insert(at, 1, c);
      else
        text[at] = c;
    }
    std::optional<std::vector<std::string>> expected{std::in_place}, found;
    try {
      for (const Json& object : parse_json(text, "whole"))
        expected->push_back(JsonReader(object, "object").require_string("text"));
    } catch (const std::runtime_error&) {
      expected.reset();
    }
    spill(directory / "a.json", text);
    try {
      found = json_documents(directory / "a.json", 1 + random() % 40);
    } catch (const std::runtime_error&) {
    }
    ASSERT_EQ(found, expected) << text;
    ++(expected ? taken : refused);
  }
  EXPECT_GT(taken, 300);
  EXPECT_GT(refused, 300);
}

TEST(JsonFileBadInput, NamesFileLineAndColumn) {
  const ScratchDir directory;
  const auto refused = [&](const std::string& text, std::initializer_list<std::string_view> pieces) {
    spill(directory / "a.json", text);
    for (const std::size_t bytes : {1, 100000})
      expect_refused([&] { json_documents(directory / "a.json", bytes); }, pieces);
  };
  refused("[\n {\"text\": 7}]", {"a.json:2:2: \"text\": found 7"});
  refused("[{\"text\": \"a\"},\n\n  {\"text\": \"b\",}]", {"a.json:3:16: not valid JSON"});
  refused("[{\"text\": \"a\"} {\"text\": \"b\"}]", {"a.json:1:16: found \"{\", expected ',' or ']'"});
  refused("[{\"text\": \"a\"},", {"a.json:1:16"});
  refused("[{\"text\": \"a\"}", {"a.json:1:15: the array is never closed"});
  refused("[{\"text\": \"a\"},]", {"a.json:1:16: ", "after a comma"});
  refused("[{\"text\": \"a\"}, {\"text\": \"b", {"a.json:1:17: what begins with \"{\" is never closed"});
  refused("[{\"text\": \"a\"}]\n{\"text\": \"b\"}", {"a.json:2:1", "follows the array"});
  refused("[[1]]", {"a.json:1:2: found an array, expected an object"});
  refused("[1, 2]", {"a.json:1:2: found 1, expected an object"});
  refused("[\"a\"]", {"a.json:1:2", "expected an object"});
  refused("{\"data\": [{\"text\": \"a\"}]}", {"a.json:1:1: the key \"text\" is missing", "\"data\""});
  refused("}", {"a.json:1:1"});
}

TEST(Megatron, ReadsEveryIntegerTypeAndItsDocuments) {
  const ScratchDir directory;
  const std::vector<std::vector<std::int64_t>> documents = {{1, 2, 3}, {}, {100}, {7, 7}};
  for (const std::uint8_t dtype : {1, 2, 3, 4, 5, 8}) {
    for (const bool modes : {false, true}) {
      write_megatron(directory / "ids", dtype, documents, modes);
      const MegatronFile file(directory / "ids.idx");
      ASSERT_EQ(file.documents(), 4);
      EXPECT_EQ(file.tokens(), 6);
      for (std::int64_t i = 0; i < 4; ++i) {
        std::vector<std::int64_t> ids(static_cast<std::size_t>(file.document_offset(i + 1) - file.document_offset(i)));
        file.read(file.document_offset(i), static_cast<std::int64_t>(ids.size()), ids.data());
        EXPECT_EQ(ids, documents[static_cast<std::size_t>(i)]);
      }
      EXPECT_THROW(file.read(5, 2, nullptr), std::logic_error);
    }
  }
}

TEST(Megatron, JoinsTheSequencesOfADocument) {
  const ScratchDir directory;
  MegatronIndex index;
  index.dtype = 4;
  index.lengths = {2, 0, 3, 1};
  index.offsets = {0, 8, 8, 20};
  index.documents = {0, 3, 4};
  spill(directory / "ids.idx", index.text());
  std::vector<std::int32_t> data = {1, 2, 3, 4, 5, 6};
  spill(directory / "ids.bin", std::string(reinterpret_cast<const char*>(data.data()), 24));
  const MegatronFile file(directory / "ids.idx");
  EXPECT_EQ(file.documents(), 2);
  EXPECT_EQ(file.document_offset(1), 5);
  EXPECT_EQ(file.document_offset(2), 6);
}

TEST(MegatronBadInput, RefusesWhatDoesNotAddUp) {
  const ScratchDir directory;
  MegatronIndex good;
  good.dtype = 8;
  good.lengths = {3, 2};
  good.offsets = {0, 6};
  good.documents = {0, 1, 2};
  const auto refused = [&](const MegatronIndex& index, std::initializer_list<std::string_view> pieces) {
    spill(directory / "ids.idx", index.text());
    expect_refused([&] { MegatronFile file(directory / "ids.idx"); }, pieces);
  };
  const auto changed = [&](auto change) {
    MegatronIndex index = good;
    change(index);
    return index;
  };
  spill(directory / "ids.idx", good.text());
  expect_refused([&] { MegatronFile file(directory / "ids.idx"); }, {"ids.bin", "No such file"});
  spill(directory / "ids.bin", std::string(10, '\0'));
  EXPECT_NO_THROW(MegatronFile(directory / "ids.idx"));

  refused(changed([](auto& index) { index.magic = "MMIDIDY"; }), {"ids.idx", "magic"});
  refused(changed([](auto& index) { index.version = 2; }), {"ids.idx", "version 2"});
  refused(changed([](auto& index) { index.dtype = 6; }), {"ids.idx", "dtype code 6", "integers"});
  refused(changed([](auto& index) { index.dtype = 0; }), {"ids.idx", "dtype code 0"});
  refused(changed([](auto& index) { index.sequences = 1ull << 61; }), {"ids.idx", "2305843009213693952"});
  refused(changed([](auto& index) { index.bounds = ~0ull; }), {"ids.idx", "18446744073709551615"});
  refused(changed([](auto& index) { index.bounds = 0; }), {"ids.idx", "0 document bounds"});
  refused(changed([](auto& index) { index.lengths[1] = -2; }), {"ids.idx", "sequence 1", "-2"});
  refused(changed([](auto& index) { index.lengths[1] = 3; }), {"ids.idx", "ids.bin has 10"});
  refused(changed([](auto& index) { index.lengths[1] = 1; }), {"ids.idx", "ids.bin has 10"});
  refused(changed([](auto& index) { index.offsets[1] = 4; }), {"ids.idx", "begins at byte 4", "ends at 6"});
  refused(changed([](auto& index) { index.offsets[0] = -6; }), {"ids.idx", "-6"});
  refused(changed([](auto& index) { index.documents = {0, 2, 1}; }), {"ids.idx", "bound 2 is 1"});
  refused(changed([](auto& index) { index.documents = {0, 1, 3}; }), {"ids.idx", "bound 2 is 3"});
  refused(changed([](auto& index) { index.documents = {0, 1, 1}; }), {"ids.idx", "ends at sequence 1"});
  refused(changed([](auto& index) { index.documents = {1, 1, 2}; }), {"ids.idx", "begins at sequence 1"});
  const std::string whole = good.text();
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    spill(directory / "ids.idx", whole.substr(0, bytes));
    expect_refused([&] { MegatronFile file(directory / "ids.idx"); }, {"ids.idx"});
  }
  spill(directory / "ids.idx", whole + "x");
  expect_refused([&] { MegatronFile file(directory / "ids.idx"); }, {"ids.idx"});
}

}  // namespace
}  // namespace smoe
