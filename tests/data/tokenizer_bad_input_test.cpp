// tokenizer.model files made to break who reads them: each is refused by name, or gives the library's own ids.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/sentencepiece_model.h"
#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

// A unigram model of two pieces, "<unk>" and U+2581: what the files below begin with.
const std::string two_pieces = from_hex("0a090a053c756e6b3e18020a050a03e29681");

// A character map whose trie has these first units and no others, and these replacements.
std::string character_map(const std::vector<std::uint32_t>& first_units, const std::string& replacements) {
  const std::uint32_t bytes = 1024;
  std::vector<std::uint32_t> units(bytes / 4);
  std::copy(first_units.begin(), first_units.end(), units.begin());
  std::string map(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  map.append(reinterpret_cast<const char*>(units.data()), bytes);
  return map + replacements;
}

// A trie with one key, "a", whose replacement is the first one.
std::string map_of_a(const std::string& replacement) {
  std::vector<std::uint32_t> units(256);
  units[0] = 1 << 10;  // children at 1 ^ byte
  const std::uint32_t node = 1 ^ 'a';
  units[node] = (node ^ 2) << 10 | 1 << 8 | 'a';  // its value at 2
  units[2] = 1u << 31;                            // place 0
  return character_map(units, replacement + '\0');
}

class TokenizerModelBadInput : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const std::string& model) {
    spill(file_, model);
    return load_tokenizer(file_.string());
  }
  void refused(const std::string& model, const std::string& why) {
    expect_refused([&] { load(model)->encode(" a"); }, {file_.string(), std::to_string(model.size()) + " bytes", why});
  }
  // Whatever was made of the model, the library by itself makes the same ids of the text, or fails too.
  void gives_the_librarys_ids(const std::string& model, const std::string& text) {
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
    std::vector<int> expected;
    const auto tokenizer = load(model);
    if (!library.Encode(text, &expected).ok())
      EXPECT_THROW(tokenizer->encode(text), std::runtime_error);
    else
      EXPECT_EQ(tokenizer->encode(text), expected);
  }

 private:
  const ScratchDir directory_;
  const std::filesystem::path file_ = directory_ / "hostile.model";
};

TEST_F(TokenizerModelBadInput, ARootThatLeadsOutOfTheTrieIsRefused) {
  for (const std::uint32_t root : {0x80000000u, 0xFFFFFFFFu, 0x80000400u})
    refused(
        two_pieces +
            ProtobufText().bytes(3, ProtobufText().bytes(2, character_map({root}, std::string(1, '\0'))).text()).text(),
        "its root");
}

TEST_F(TokenizerModelBadInput, AFieldOfAnotherTypeIsNoField) {
  // A user-defined piece whose text comes a second time as a number, and byte_fallback as a fixed32.
  const std::string mistyped = two_pieces + from_hex(
                                                "0a0b0a05e29681016118040800"
                                                "12081802"
                                                "9d0201000000"
                                                "1a022000");
  ASSERT_EQ(mistyped.size(), 45u);
  gives_the_librarys_ids(mistyped, " a");
  gives_the_librarys_ids(mistyped,
                         " \x01"
                         "a a");
  const SentencePieceModel model = parse_sentencepiece_model(mistyped);
  EXPECT_FALSE(model.byte_fallback);
  EXPECT_EQ(model.pieces.back(),
            "\xE2\x96\x81\x01"
            "a");
  // A piece that is a number: the library passes it over.
  const std::string number = two_pieces + from_hex(
                                              "0800"
                                              "12081802"
                                              "9d0201000000"
                                              "1a022000");
  EXPECT_EQ(parse_sentencepiece_model(number).pieces.size(), 2u);
  gives_the_librarys_ids(number, " a");
}

TEST_F(TokenizerModelBadInput, EveryFieldIsReadByItsTypeAlone) {
  const auto fixed32 = [&](unsigned field) { return ProtobufText().fixed32(field, 1).text(); };
  const std::string text =
      ProtobufText()
          .bytes(1, ProtobufText().bytes(1, "a").number(1, 7).text())
          .number(1, 1)
          .number(2, 1)
          .number(3, 1)
          .number(5, 1)
          .bytes(2, fixed32(3) + fixed32(24) + fixed32(35) + ProtobufText().number(44, 1).bytes(3, "x").text())
          .bytes(3, fixed32(3) + fixed32(4) + fixed32(5) + ProtobufText().number(2, 1).text())
          .text();
  const SentencePieceModel model = parse_sentencepiece_model(text), untouched;
  EXPECT_EQ(model.pieces, std::vector<std::string_view>{"a"});
  EXPECT_EQ(model.type, untouched.type);
  EXPECT_EQ(model.byte_fallback, untouched.byte_fallback);
  EXPECT_EQ(model.whitespace_is_suffix, untouched.whitespace_is_suffix);
  EXPECT_EQ(model.add_dummy_prefix, untouched.add_dummy_prefix);
  EXPECT_EQ(model.remove_extra_whitespaces, untouched.remove_extra_whitespaces);
  EXPECT_EQ(model.escape_whitespaces, untouched.escape_whitespaces);
  EXPECT_EQ(model.normalizes_characters, untouched.normalizes_characters);
  EXPECT_EQ(model.denormalizes, untouched.denormalizes);
  EXPECT_EQ(model.unk_surface, untouched.unk_surface);
  // A model type that there is not is an unknown field too.
  EXPECT_EQ(
      parse_sentencepiece_model(ProtobufText().bytes(2, ProtobufText().number(3, 2).number(3, 9).text()).text()).type,
      SentencePieceModel::Type::bpe);
}

TEST_F(TokenizerModelBadInput, WhatTheLibraryThrowsIsARefusal) {
  refused(two_pieces.substr(0, 11) + from_hex("0a030a0100"), "failed to load");  // a piece that begins with a zero byte
}

TEST_F(TokenizerModelBadInput, ACharacterThatBecomesALongTextIsRefused) {
  const auto model = [](std::size_t length) {
    return model_of({"a", "b"}, ProtobufText().bytes(2, map_of_a(std::string(length, 'b'))).text());
  };
  EXPECT_EQ(load(model(33))->encode("a"), load(model_of({"a", "b"}))->encode(std::string(33, 'b')));
  EXPECT_NO_THROW(load(model(64)));
  refused(model(65), "more than 64 bytes");
  refused(model(60000), "more than 64 bytes");
}

TEST_F(TokenizerModelBadInput, AnUnknownTokenThatStandsForALongTextIsRefused) {
  const auto model = [](std::size_t length) {
    return two_pieces + ProtobufText().bytes(2, ProtobufText().bytes(44, std::string(length, '?')).text()).text();
  };
  EXPECT_EQ(load(model(256))->decode(std::vector<std::int32_t>{0}), std::string(256, '?'));
  refused(model(257), "257 bytes");
}

TEST_F(TokenizerModelBadInput, FlippedBitsGiveTheLibrarysIdsOrARefusal) {
  const std::string whole = model_of({"\xE2\x96\x81", "a", "b", "ab",
                                      "\xE2\x96\x81"
                                      "a"});
  int accepted = 0;
  for (std::size_t at = whole.size() - 60; at < whole.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << bit);
      try {
        load(flipped);
        ++accepted;
      } catch (const std::runtime_error&) {
        continue;
      }
      gives_the_librarys_ids(flipped, " ab a\nb\xFFz  ba");
    }
  EXPECT_GT(accepted, 100);
}

// Mistral's own directories: the file that is there is named, and can be named itself.
TEST(TokenizerBadInput, ADirectoryWhoseVocabularyIsNamedByItsVersion) {
  ScratchDir scratch;
  spill(scratch / "tokenizer.model.v3", slurp(small_model_file()));
  expect_refused([&] { load_tokenizer(scratch.path().string()); },
                 {"holds no tokenizer.model", "name the file itself", "\"tokenizer.model.v3\" is one"});
  EXPECT_EQ(load_tokenizer((scratch / "tokenizer.model.v3").string())->sha256(),
            load_tokenizer(small_model_file())->sha256());
}

}  // namespace
}  // namespace smoe
