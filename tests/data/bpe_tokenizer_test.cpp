// A tokenizer.json: how words are joined, what patterns mean, what is refused. Ids of whole files: goldens/golden_bpe_test.cpp.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/files/json.h"
#include "data/text/bpe/bpe_model.h"
#include "data/text/bpe/split_pattern.h"
#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::mentions;
using test::message_of;
using test::spill;

Json model_of_letters(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json model = {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}}}, {"merges", Json::array()}};
  for (const auto& [left, right] : merges) {
    model["merges"].push_back(left + " " + right);
    if (!model["vocab"].contains(left + right)) model["vocab"][left + right] = model["vocab"].size();
  }
  return model;
}

std::vector<std::string> pieces_of(const BpeModel& model, const std::string& word) {
  std::vector<std::int32_t> ids;
  model.encode_word(word, ids);
  std::vector<std::string> pieces;
  for (const std::int32_t id : ids) pieces.push_back(model.piece(id));
  return pieces;
}

TEST(BpeModel, TheFirstMergeOfTheListComesFirstAndTheLeftmostOfSeveral) {
  const BpeModel model(model_of_letters({{"b", "c"}, {"a", "b"}, {"a", "a"}, {"aa", "a"}}), "t.json", false);
  EXPECT_EQ(pieces_of(model, "abc"), (std::vector<std::string>{"a", "bc"}));
  EXPECT_EQ(pieces_of(model, "aab"), (std::vector<std::string>{"a", "ab"}));
  EXPECT_EQ(pieces_of(model, "aaaa"), (std::vector<std::string>{"aa", "aa"}));
  EXPECT_EQ(pieces_of(model, "aaac"), (std::vector<std::string>{"aaa", "c"}));
}

// Said as the paper does: again and again the pair of the lowest rank, everything looked at anew.
std::vector<std::string> joined_naively(std::vector<std::string> pieces,
                                        const std::vector<std::pair<std::string, std::string>>& merges) {
  for (bool joined = true; joined;) {
    joined = false;
    for (const auto& [left, right] : merges) {
      for (std::size_t i = 0; i + 1 < pieces.size() && !joined; ++i)
        if (pieces[i] == left && pieces[i + 1] == right) {
          pieces[i] += pieces[i + 1];
          pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          joined = true;
        }
      if (joined) break;
    }
  }
  return pieces;
}

// Short words and long ones are joined by different code.
RC_GTEST_PROP(BpeModel, WordsOfAnyLengthAreJoinedAsOneByOne, ()) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<std::string> pieces = {"a", "b", "c"};
  const int count = *rc::gen::inRange(0, 12);
  for (int i = 0; i < count; ++i) {
    const std::string left = *rc::gen::elementOf(pieces), right = *rc::gen::elementOf(pieces);
    if (left.size() + right.size() > 8 ||
        std::find(merges.begin(), merges.end(), std::pair(left, right)) != merges.end())
      continue;
    merges.emplace_back(left, right);
    pieces.push_back(left + right);
  }
  const BpeModel model(model_of_letters(merges), "t.json", false);
  const auto word = *rc::gen::container<std::string>(*rc::gen::inRange(0, 130), rc::gen::element('a', 'b', 'c'));
  std::vector<std::string> letters;
  for (const char c : word) letters.emplace_back(1, c);
  RC_ASSERT(pieces_of(model, word) == joined_naively(letters, merges));
}

std::vector<std::string> matches(const SplitPattern& pattern, const std::string& text) {
  std::vector<std::string> found;
  std::size_t at = 0;
  while (const auto match = pattern.find(text, at)) {
    found.push_back(text.substr(match->begin, match->size()));
    at = match->end;
  }
  return found;
}

// Python takes such lists too, and joins by them as they stand.
TEST(BpeModel, AListOutOfOrderIsTold) {
  using Merges = std::vector<std::pair<std::string, std::string>>;
  const auto told = [](const Merges& merges) {
    return BpeModel(model_of_letters(merges), "t.json", false).out_of_order();
  };
  EXPECT_EQ(told({{"a", "b"}, {"ab", "c"}}), "");
  EXPECT_EQ(told({{"a", "b"}, {"a", "bc"}, {"ab", "c"}, {"b", "c"}}), "") << "abc is made of ab, which is there";
  EXPECT_TRUE(
      mentions(told({{"a", "b"}, {"ca", "b"}, {"c", "a"}}), {"t.json", "entry 1", "\"ca\" and \"b\"", "1 in all"}));
  EXPECT_TRUE(mentions(told({{"ab", "c"}, {"abc", "a"}, {"a", "b"}}), {"entry 0", "2 in all"}));
}

TEST(SplitPattern, MeansWhatOnigurumaMeans) {
  using Found = std::vector<std::string>;
  EXPECT_EQ(matches(SplitPattern(R"(\s+)"), "a \u0085\u3000b\u180Ec"), (Found{" \u0085\u3000"}));
  EXPECT_EQ(matches(SplitPattern(R"([^\s]+)"), "a\u180Eb c"), (Found{"a\u180Eb", "c"}));
  EXPECT_EQ(matches(SplitPattern(R"(\S+)"), "ab \u00A0c"), (Found{"ab", "c"}));
  EXPECT_EQ(matches(SplitPattern(R"(\p{Han}+)"), "漢字、仮名"),
            (Found{"漢字", "仮名"}));  // 、 is shared with other scripts
  EXPECT_EQ(matches(SplitPattern(R"([\u0800-\u4e00]+)"), "ab\u0900\u0901"), (Found{"\u0900\u0901"}));
  EXPECT_EQ(matches(SplitPattern(R"(\p{N}{1,3})"), "1234५x"), (Found{"123", "4५"}));
  EXPECT_EQ(matches(SplitPattern(R"((?i:'s|'t))"), "it'S 'ſ 't"), (Found{"'S", "'ſ", "'t"}));
  EXPECT_EQ(matches(SplitPattern(R"(x*)"), "axxa"), (Found{"xx"}));  // what is empty is no match
  EXPECT_EQ(matches(SplitPattern(R"(a$)"), "a\nba"), (Found{"a", "a"}));
  EXPECT_EQ(matches(SplitPattern::of_literal("a.b"), "a.baxb"), (Found{"a.b"}));
}

TEST(SplitPattern, WhatTheTwoWouldReadDifferentlyIsRefused) {
  const auto message = [](const std::string& pattern) { return message_of([&] { SplitPattern{pattern}; }); };
  EXPECT_NE(message("[a[bc]]").find("at byte 2: found a class inside a class"), std::string::npos);
  EXPECT_NE(message("[a-z&&[^b]]").find("intersection"), std::string::npos);
  EXPECT_NE(message("(?m)a.b").find("at byte 0: found an option"), std::string::npos);
  EXPECT_NE(message(R"(\h+)").find("found \\h"), std::string::npos);
  EXPECT_NE(message(R"([\S])").find("found \\S"), std::string::npos);
  EXPECT_NE(message("a\\").find("at the end"), std::string::npos);
  EXPECT_NE(message("(a").find("does not compile"), std::string::npos);
  EXPECT_NE(message(R"(\u12)").find("four hexadecimal digits"), std::string::npos);
  EXPECT_NE(message(R"(\pL)").find("without {NAME}"), std::string::npos);
  EXPECT_EQ(matches(SplitPattern(R"([\[\]\-&^]+)"), "a[]-&^b"), std::vector<std::string>{"[]-&^"});
}

class TokenizerJsonAlone : public testing::Test {
 protected:
  TokenizerJsonAlone() {
    json_ = {{"added_tokens", {{{"id", 5}, {"content", "<s>"}, {"special", true}}, {{"id", 6}, {"content", "<x>"}}}},
             {"normalizer", nullptr},
             {"pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "never"}}},
             {"decoder", nullptr},
             {"model", model_of_letters({{"a", "b"}, {"ab", "c"}})}};
  }
  std::unique_ptr<Tokenizer> load() const {
    spill(directory_ / "tokenizer.json", dump_json(json_));
    return load_tokenizer(directory_.path().string());
  }
  void refused(const std::string& place, const Json& value, const std::string& expected) {
    Json json = json_;
    json[Json::json_pointer(place)] = value;
    spill(directory_ / "tokenizer.json", dump_json(json));
    const std::string message = message_of([&] { load_tokenizer(directory_.path().string()); });
    EXPECT_NE(message.find("tokenizer.json"), std::string::npos) << message;
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }

  Json json_;
  const test::ScratchDir directory_;
};

TEST_F(TokenizerJsonAlone, IsATokenizer) {
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  EXPECT_EQ(tokenizer->encode("abcab<x>a"), (std::vector<std::int32_t>{4, 3, 6, 0}));
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{5, 4, 6, 5}), "abc<x>");
  EXPECT_TRUE(tokenizer->is_control(5));
  EXPECT_FALSE(tokenizer->is_control(6));
  EXPECT_EQ(tokenizer->bos(), -1);
  EXPECT_EQ(tokenizer->eos(), -1);
  EXPECT_EQ(tokenizer->unk(), -1);
  EXPECT_EQ(tokenizer->name(), "tokenizer.json");
  EXPECT_EQ(tokenizer->files().size(), 1u);
  EXPECT_EQ(tokenizer->encode("a\xFF"), (std::vector<std::int32_t>{0}));  // U+FFFD, which has no piece and no bytes
  EXPECT_EQ(load_tokenizer((directory_ / "tokenizer.json").string())->encode("ab"), (std::vector<std::int32_t>{3}));
}

TEST_F(TokenizerJsonAlone, TheFilesBesideItNameTheEnds) {
  const std::string alone = load()->sha256();
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, alone);
  spill(directory_ / "special_tokens_map.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "<x>"})");
  EXPECT_EQ(load()->bos(), 5);
  EXPECT_EQ(load()->eos(), 6);
  spill(directory_ / "tokenizer_config.json", R"({"eos_token": "abc"})");
  EXPECT_EQ(load()->bos(), 5);
  EXPECT_EQ(load()->eos(), 4);
  EXPECT_NE(load()->sha256(), alone);
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, load()->sha256());
  spill(directory_ / "tokenizer_config.json", R"({"eos_token": "<y>"})");
  EXPECT_NE(message_of([&] { load(); }).find("tokenizer_config.json:1:2: eos_token: found \"<y>\", which is no token"),
            std::string::npos);
  spill(directory_ / "tokenizer_config.json", R"({"added_tokens_decoder": {"7": {"content": "<y>"}}})");
  EXPECT_NE(message_of([&] { load(); }).find("tokenizer_config.json:1:27: added_tokens_decoder: \"7\": found \"<y>\""),
            std::string::npos);
}

TEST_F(TokenizerJsonAlone, WhatIsNotSupportedIsRefusedByName) {
  refused("/model/type", "Unigram", "model: type: found \"Unigram\"");
  refused("/model/dropout", 0.1, "model: dropout: found 0.1");
  refused("/model/end_of_word_suffix", "</w>", "model: end_of_word_suffix: found \"</w>\"");
  refused("/model/unk_token", "<unk>", "model: unk_token: found \"<unk>\"");
  refused("/model/vocab/z", 2, "model: vocab: \"z\": found the id 2, which \"c\" has too");
  refused("/model/vocab/z", -1, "vocab");
  refused("/model/vocab", Json::object(), "model: vocab: found no pieces");
  refused("/model/merges/1", "ab", "model: merges: entry 1 is no pair");
  refused("/model/merges/1", "ab d", "model: merges: entry 1 (\"ab\" and \"d\"): \"d\" is no piece");
  refused("/model/merges/1", "a b", "model: merges: entry 1 (\"a\" and \"b\") stands there twice");
  refused("/normalizer", {{"type", "Lowercase"}}, "normalizer: found a step \"Lowercase\"");
  refused("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "(a"}}}, {"content", ""}},
          "normalizer: the pattern");
  refused("/pre_tokenizer", {{"type", "BertPreTokenizer"}}, "pre_tokenizer: found a step \"BertPreTokenizer\"");
  refused("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}},
          "pre_tokenizer: found \"Digits\" behind ByteLevel");
  refused("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Thrown"}},
          "behavior of Split: found \"Thrown\"");
  refused("/pre_tokenizer/prepend_scheme", "last", "prepend_scheme of Metaspace: found \"last\"");
  refused("/decoder", {{"type", "CTC"}}, "decoder: \"CTC\": is not supported");
  refused("/decoder", {{"type", "ByteLevel"}}, "decoder: found ByteLevel, but the pre_tokenizer has none");
  refused("/added_tokens/0/id", 3, "added_tokens[0]: id 3 (\"<s>\"): the vocabulary has \"ab\" under this id");
  refused("/added_tokens/0/content", "ab", "added_tokens[0]: id 5 (\"ab\"): the vocabulary has it under the id 3");
  refused("/added_tokens/0/id", 6, "added_tokens[1]: id 6 (\"<x>\"): stands there twice");
  refused("/added_tokens/0/content", "", "found 0 bytes");
  refused("/normalizer", {{"type", "Prepend"}, {"prepend", "a"}}, "added_tokens[1]: id 6 (\"<x>\"): is normalized");
}

// Also what has parsed is refused by line.
TEST_F(TokenizerJsonAlone, ARefusalNamesTheLine) {
  const auto refused_at = [&](const std::string& place, const Json& value, const std::string& line,
                              const std::string& at) {
    Json json = json_;
    json[Json::json_pointer(place)] = value;
    const std::string text = dump_json(json, 1);
    std::vector<std::string> lines{""};
    for (const char c : text) c == '\n' ? lines.emplace_back() : lines.back() += c;
    spill(directory_ / "tokenizer.json", text);
    const std::string message = message_of([&] { load_tokenizer(directory_.path().string()); });
    const std::size_t begin = message.find("tokenizer.json:");
    ASSERT_NE(begin, std::string::npos) << message;
    EXPECT_NE(message.find(at), std::string::npos) << message;
    const auto number = static_cast<std::size_t>(std::stoul(message.substr(begin + 15)));
    ASSERT_LE(number, lines.size()) << message;
    EXPECT_NE(lines[number - 1].find(line), std::string::npos) << message << "\n" << lines[number - 1];
  };
  refused_at("/model/merges/1", "ab d", "\"ab d\"", "merges: entry 1");
  refused_at("/model/vocab/z\xC3\xA9", 2, "\"z\xC3\xA9\": 2", "found the id 2");
  refused_at("/model/dropout", 0.1, "\"dropout\": 0.1", "dropout");
  refused_at("/added_tokens/1/id", "x", "\"id\": \"x\"", "added_tokens[1]: \"id\": found");
  refused_at("/pre_tokenizer/prepend_scheme", "last", "\"pre_tokenizer\"", "prepend_scheme of");
}

TEST_F(TokenizerJsonAlone, AFileOfHundredsOfMegabytesIsRefused) {
  spill(directory_ / "tokenizer.json", std::string(std::size_t{97} << 20, ' '));
  EXPECT_NE(message_of([&] { load_tokenizer(directory_.path().string()); }).find("tokenizer.json"), std::string::npos);
}

}  // namespace
}  // namespace smoe
