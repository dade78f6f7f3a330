#include "data/text/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <numeric>
#include <random>
#include <thread>

#include "data/text/byte_tokenizer.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;

// The library by itself, on the whole text.
class Library {
 public:
  explicit Library(const std::string& model) {
    if (!processor_.LoadFromSerializedProto(model).ok()) throw std::runtime_error("the library refuses the model");
  }
  Ids encode(std::string_view text) const {
    std::vector<int> ids;
    EXPECT_TRUE(processor_.Encode(text, &ids).ok());
    return ids;
  }
  std::string decode(const Ids& ids) const {
    std::string text;
    EXPECT_TRUE(processor_.Decode(ids, &text).ok());
    return text;
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

// Text at its most awkward: runs of spaces, U+2581 as such, zero bytes, broken and overlong UTF-8, surrogates.
std::string awkward_text(std::mt19937& random, int parts) {
  static const std::vector<std::string> choices = {
      " ",    "  ",   "\n",     "\t",       "a",        "the",          " the",
      "1",    "23",   "é",      "日本",     "😀",        "\xE2\x96\x81", std::string(1, '\0'),
      "\x01", "\xFF", "\xC3",   "\xE2\x96", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
      "\x80", "<s>",  "<0x0A>", "</s>",     "  \n  ",   "ka",           "strom",
      ".",    ",\r\n"};
  std::string text;
  for (int i = 0; i < parts; ++i) text += choices[random() % choices.size()];
  return text;
}

Ids encode_in_parts(const Tokenizer& tokenizer, std::string_view text, std::size_t part_bytes) {
  Ids ids;
  bool opens = true;
  while (!text.empty()) {
    const std::size_t end = tokenizer.next_cut(text, part_bytes);
    EXPECT_GT(end, 0u);
    tokenizer.encode_part(text.substr(0, end), opens, ids);
    text.remove_prefix(end);
    opens = false;
  }
  return ids;
}

void expect_as_library(const SentencePieceTokenizer& tokenizer, const Library& library, const std::string& text) {
  const Ids expected = library.encode(text);
  ASSERT_EQ(tokenizer.encode(text), expected) << text;
  ASSERT_EQ(encode_in_parts(tokenizer, text, 1 + text.size() % 17), expected) << text;
  ASSERT_EQ(tokenizer.decode(expected), library.decode(expected)) << text;
}

void expect_same_decoding(const SentencePieceTokenizer& tokenizer, std::uint32_t seed, int cases) {
  const Library library(tokenizer.file());
  std::mt19937 random(seed);
  const auto size = static_cast<unsigned>(tokenizer.vocab_size());
  for (int i = 0; i < cases; ++i) {
    Ids ids(random() % 10);
    for (auto& id : ids) id = static_cast<std::int32_t>(random() % (random() % 2 == 0 ? size : std::min(size, 300u)));
    ASSERT_EQ(tokenizer.decode(ids), library.decode(ids)) << testing::PrintToString(ids);
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const auto id : ids) {
      const std::string piece = stream.push(id);
      ASSERT_TRUE(is_valid_utf8(piece));
      streamed += piece;
    }
    ASSERT_EQ(streamed + stream.finish(), tokenizer.decode(ids));
  }
}

TEST(ByteTokenizer, GivesEveryByteAnId) {
  const ByteTokenizer bytes;
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  Ids expected(256);
  std::iota(expected.begin(), expected.end(), 3);
  EXPECT_EQ(bytes.encode(all), expected);
  EXPECT_EQ(bytes.vocab_size(), 259);
  EXPECT_EQ(bytes.unk(), 0);
  EXPECT_EQ(bytes.bos(), 1);
  EXPECT_EQ(bytes.eos(), 2);
  EXPECT_EQ(bytes.encode("<s>").size(), 3u);
  EXPECT_EQ(bytes.decode(Ids{1, 3 + 'h', 3 + 'i', 2}), "hi");
  EXPECT_EQ(bytes.sha256().size(), 64u);
  EXPECT_TRUE(bytes.file().empty());
  EXPECT_EQ(encode_in_parts(bytes, all, 7), expected);
}

TEST(StreamDecoder, HoldsCharactersBackUntilTheyAreWhole) {
  const ByteTokenizer bytes;
  StreamDecoder stream(bytes);
  EXPECT_EQ(stream.push(3 + 'a'), "a");
  EXPECT_EQ(stream.push(3 + 0xF0), "");
  EXPECT_EQ(stream.push(3 + 0x9F), "");
  EXPECT_EQ(stream.push(3 + 0x98), "");
  EXPECT_EQ(stream.push(3 + 0x80), "😀");
  EXPECT_EQ(stream.push(3 + 0xE6), "");
  EXPECT_EQ(stream.push(3 + 'b'), "\uFFFDb");
  EXPECT_EQ(stream.push(3 + 0xC3), "");
  EXPECT_EQ(stream.push(2), "\uFFFD");
  EXPECT_EQ(stream.push(3 + 0xA9), "\uFFFD");
  EXPECT_EQ(stream.push(3 + 0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, DropsTheSpaceInFrontOfATextOnly) {
  const auto& tokenizer = small_tokenizer();
  const Ids ids = tokenizer.encode("ka to mi");
  StreamDecoder stream(tokenizer);
  std::string text = stream.push(tokenizer.bos());
  for (const auto id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.finish(), "ka to mi");
  text.clear();
  for (const auto id : ids) text += stream.push(id);  // finish() began a new text
  EXPECT_EQ(text, "ka to mi");
}

TEST(Utf8, AgreesWithTheStandardOnWhatIsACharacter) {
  EXPECT_TRUE(is_valid_utf8("aé日😀\xF4\x8F\xBF\xBF"));
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x28\xA1", "\xC3"})
    EXPECT_FALSE(is_valid_utf8(bad));
  EXPECT_TRUE(read_utf8("\xE2\x96").cut);
  EXPECT_FALSE(read_utf8("\xE2\x28").cut);
  EXPECT_FALSE(read_utf8("\xED\xA0").cut);
}

TEST(SentencePieceTokenizer, EncodesByWordsAsTheLibraryDoesWhole) {
  const auto& tokenizer = small_tokenizer();
  const Library library(tokenizer.file());
  ASSERT_TRUE(tokenizer.cuts_text());
  expect_as_library(tokenizer, library, made_up_text(7, 500));
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i)
    expect_as_library(tokenizer, library, awkward_text(random, static_cast<int>(random() % 12)));
}

TEST(SentencePieceTokenizer, DecodesAsTheLibraryDoes) { expect_same_decoding(small_tokenizer(), 11, 4000); }

TEST(SentencePieceTokenizer, RestoresTextExactly) {
  const auto& tokenizer = small_tokenizer();
  const std::vector<std::string> texts = {
      "", " ", "  x ", "emoji 😀 and 漢字\tand\n\n newlines \r\n", "\n", std::string("a\0b", 3)};
  for (const std::string& text : texts) EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(SentencePieceTokenizer, EncodesAlikeOnSeveralThreads) {
  const SentencePieceTokenizer tokenizer(small_model_file());
  const std::string text = made_up_text(9, 300);
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<Ids> results(4);
  for (auto& result : results) threads.emplace_back([&] { result = tokenizer.encode(text); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(SentencePieceTokenizer, KeepsWhereItMayNotCutWhole) {
  const ScratchDir directory;
  const std::vector<std::string> pieces = {"\xE2\x96\x81",
                                           "a",
                                           "b",
                                           "ab",
                                           "b\xE2\x96\x81",
                                           "\xE2\x96\x81"
                                           "a"};
  spill(directory / "bpe.model", model_of(pieces));
  const SentencePieceTokenizer bpe(directory / "bpe.model");
  EXPECT_TRUE(bpe.cuts_text());
  EXPECT_EQ(bpe.next_cut("b a", 1), 3u);  // "b " and " a" are pieces
  EXPECT_EQ(bpe.next_cut("b b", 1), 2u);  // " b" is none
  EXPECT_EQ(bpe.next_cut("aab", 1), 1u);  // "aa" is in none
  spill(directory / "unigram.model", model_of(pieces, "", 1));
  const SentencePieceTokenizer unigram(directory / "unigram.model");
  EXPECT_FALSE(unigram.cuts_text());
  EXPECT_EQ(unigram.next_cut("aab", 1), 3u);
  const Library whole_bpe(bpe.file()), whole_unigram(unigram.file());
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (unsigned n = random() % 20; n > 0; --n) text += "ab \nx"[random() % 5];
    expect_as_library(bpe, whole_bpe, text);
    expect_as_library(unigram, whole_unigram, text);
  }
  Ids ids;
  EXPECT_THROW(unigram.encode_part("a", false, ids), std::logic_error);
}

TEST(LoadTokenizer, TakesAFileADirectoryOrBytes) {
  EXPECT_EQ(load_tokenizer("bytes")->vocab_size(), 259);
  const auto from_file = load_tokenizer(small_model_file());
  EXPECT_EQ(from_file->vocab_size(), 600);
  EXPECT_EQ(from_file->name(), "sentencepiece");
  EXPECT_EQ(from_file->sha256(), sha256_file(small_model_file()));
  EXPECT_EQ(from_file->file(), slurp(small_model_file()));
  const auto from_directory = load_tokenizer(std::filesystem::path(small_model_file()).parent_path().string());
  EXPECT_EQ(from_directory->sha256(), from_file->sha256());
}

TEST(TokenizerBadInput, SaysWhatIsWrongWithTheFile) {
  const ScratchDir directory;
  const auto refused = [&](const std::string& name, std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { load_tokenizer((directory / name).string()); }, pieces);
  };
  refused("nowhere.model", {"nowhere.model"});
  refused("", {"tokenizer.model", "bytes"});
  spill(directory / "tokenizer.json", "{}");
  refused("", {"tokenizer.json", "\"model\" is missing"});
  spill(directory / "empty.model", "");
  refused("empty.model", {"empty.model", "0 bytes", "no pieces"});
  spill(directory / "text.model", "not a model");
  refused("text.model", {"text.model"});
  const std::string whole = slurp(small_model_file());
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    spill(directory / "cut.model", whole.substr(0, random() % whole.size()));
    refused("cut.model", {"cut.model", "SentencePiece"});
  }
}

TEST(TokenizerBadInput, SurvivesFlippedBytes) {
  const ScratchDir directory;
  const std::string whole = model_of({"\xE2\x96\x81", "a", "b", "ab",
                                      "\xE2\x96\x81"
                                      "a"});
  std::mt19937 random(2);
  int accepted = 0;
  for (int i = 0; i < 400; ++i) {
    std::string flipped = whole;
    flipped[random() % flipped.size()] ^= static_cast<char>(1u << random() % 8);
    spill(directory / "flipped.model", flipped);
    try {
      const auto tokenizer = load_tokenizer((directory / "flipped.model").string());
      ++accepted;  // a piece's letter or score: then it must work
      Ids ids = tokenizer->encode("ab a\nb\xFFz");
      tokenizer->decode(ids);
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("flipped.model"), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(TokenizerBadInput, RefusesACharacterMapThatLeadsOutOfItself) {
  const ScratchDir directory;
  const auto with_map = [&](std::uint32_t trie_bytes, std::uint32_t first_unit, const std::string& replacements) {
    std::string map(reinterpret_cast<const char*>(&trie_bytes), 4);
    std::vector<std::uint32_t> units(256);
    units[0] = first_unit;
    map.append(reinterpret_cast<const char*>(units.data()), 1024);
    map += replacements;
    spill(directory / "map.model", model_of({"a"}, ProtobufText().bytes(2, map).text()));
  };
  const std::string file = (directory / "map.model").string(), end(1, '\0');
  with_map(1024, 0, "x" + end);
  EXPECT_NO_THROW(load_tokenizer(file)->encode("abc"));
  with_map(1024, 1u << 30, "x" + end);
  expect_refused([&] { load_tokenizer(file); }, {"map.model", "offset"});
  with_map(1024, 0, "x");
  expect_refused([&] { load_tokenizer(file); }, {"map.model", "does not end"});
  with_map(4096, 0, end);
  expect_refused([&] { load_tokenizer(file); }, {"map.model", "trie"});
}

TEST(TokenizerBadInput, RefusesIdsOutsideTheVocabulary) {
  expect_refused([] { ByteTokenizer().decode(Ids{259}); }, {"259", "vocabulary"});
  expect_refused([] { ByteTokenizer().decode(Ids{-1}); }, {"-1", "vocabulary"});
  expect_refused([] { small_tokenizer().decode(Ids{600}); }, {"600"});
}

// Pinned from SentencePiece's Python package with the same file.
class MixtralTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    if (mixtral_model_file().empty())
      GTEST_SKIP()
          << "no Mixtral tokenizer here: run tests/data/fetch_mixtral_tokenizer.sh build/fixtures, or name the "
             "file in SMOE_MIXTRAL_TOKENIZER";
    tokenizer_ = std::make_unique<SentencePieceTokenizer>(mixtral_model_file());
  }
  std::unique_ptr<SentencePieceTokenizer> tokenizer_;
};

TEST_F(MixtralTokenizer, IsTheReleasedFile) {
  EXPECT_EQ(tokenizer_->sha256(), "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055");
  EXPECT_EQ(tokenizer_->vocab_size(), 32000);
  EXPECT_EQ(tokenizer_->unk(), 0);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), 2);
  EXPECT_TRUE(tokenizer_->cuts_text());
}

TEST_F(MixtralTokenizer, GivesTheReleasedIds) {
  const struct {
    std::string text;
    Ids ids;
  } cases[] = {
      {"[INST] hi [/INST]", {733, 16289, 28793, 12014, 733, 28748, 16289, 28793}},
      {"Hello, world!", {22557, 28725, 1526, 28808}},
      {"  two  spaces", {259, 989, 28705, 10599}},
      {"def f(x):\n    return x + 1\n", {801, 285, 28732, 28744, 1329, 13, 2287, 604, 1318, 648, 28705, 28740, 13}},
      {"The 2024 budget: 1,234,567.89 €",
       {415,   28705, 28750, 28734, 28750, 28781, 8326,  28747, 28705, 28740, 28725,
        28750, 28770, 28781, 28725, 28782, 28784, 28787, 28723, 28783, 28774, 17416}},
      {"日本語とキャラクター 😀\t\n",
       {28705, 29142, 29119, 30321, 29316, 29753, 30026, 29281, 29221, 29341, 28990, 28705, 30575, 12, 13}},
      {"Ünïcödé naïve café", {13156, 28711, 28920, 28717, 14697, 28797, 1879, 28920, 333, 28345}},
      {"<s>[INST]</s>", {523, 28713, 28767, 28792, 16289, 28793, 700, 28713, 28767}},
      {std::string("\x00\x01\x7f", 3), {28705, 3, 29534, 30982}},
      {"    \n\n\t\tend ", {355, 13, 13, 12, 12, 416, 28705}},
      {"", {}},
  };
  for (const auto& [text, ids] : cases) {
    EXPECT_EQ(tokenizer_->encode(text), ids) << text;
    EXPECT_EQ(tokenizer_->decode(ids), text);
  }
}

TEST_F(MixtralTokenizer, EncodesByWordsAsTheLibraryDoesWhole) {
  const Library library(tokenizer_->file());
  std::mt19937 random(4);
  for (int i = 0; i < 1500; ++i)
    expect_as_library(*tokenizer_, library, awkward_text(random, static_cast<int>(random() % 16)));
  for (const char* name :
       {"data/text/tokenizer.h", "tests/data/tokenizer_test.cpp", "CMakeLists.txt", "data/files/json.cpp"})
    expect_as_library(*tokenizer_, library, slurp(std::filesystem::path(SMOE_SOURCE_DIR) / name));
}

TEST_F(MixtralTokenizer, DecodesAsTheLibraryDoes) { expect_same_decoding(*tokenizer_, 12, 3000); }

}  // namespace
}  // namespace smoe
