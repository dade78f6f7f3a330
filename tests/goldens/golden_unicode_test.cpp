// What patterns and normal forms take each character for, held to the Python package tokenizers (make_unicode_goldens.py), whatever
// version of Unicode PCRE2 and utf8proc were built with.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/files/utf8.h"
#include "data/text/bpe/newer_characters.h"
#include "data/text/bpe/newer_characters_table.h"
#include "data/text/bpe/normalizer.h"
#include "data/text/bpe/pre_tokenizer.h"
#include "data/text/bpe/split_pattern.h"
#include "data/text/tokenizer.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"

namespace smoe {
namespace {

using test::spill;

constexpr char32_t last_code = 0x10FFFF;
using CodeSet = std::vector<bool>;  // by code point

Json read_golden(const char* name) {
  return read_json_file(std::filesystem::path(test::source_folder()) / "tests/goldens" / name);
}

const Json& unicode() {
  static const Json read = read_golden("unicode.json");
  return read;
}

bool is_code(char32_t c) { return c <= last_code && (c < 0xD800 || c > 0xDFFF); }

// In planes of which nothing is assigned; of one in a thousand that is still looked at.
bool is_far(char32_t c) { return c > 0x40000 && c < 0xE0000 && c % 1024 != 0; }

std::string utf8(char32_t c) {
  const auto trail = [c](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), trail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), trail(6), trail(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), trail(12), trail(6), trail(0)};
}

// Of "first-last first-last ...", in hexadecimal.
CodeSet read_codes(const std::string& text) {
  CodeSet codes(last_code + 1);
  std::istringstream words(text);
  words >> std::hex;
  char dash = 0;
  for (std::uint32_t first = 0, last = 0; words >> first >> dash >> last;)
    for (std::uint32_t c = first; c <= last; ++c)
      if (is_code(c)) codes[c] = true;
  return codes;
}

// All characters, in texts of 4096.
std::vector<std::string> all_characters() {
  std::vector<std::string> texts;
  for (char32_t c = 0; c <= last_code; ++c) {
    if (c % 4096 == 0) texts.emplace_back();
    if (is_code(c)) texts.back() += utf8(c);
  }
  return texts;
}

void add_characters(std::string_view text, CodeSet& codes) {
  while (!text.empty()) {
    const Utf8Char c = read_utf8(text);
    codes[c.code] = true;
    text.remove_prefix(static_cast<std::size_t>(c.bytes));
  }
}

CodeSet matched_by(const std::string& pattern_of_one) {
  static const std::vector<std::string> texts = all_characters();
  const SplitPattern pattern(pattern_of_one + "+");
  CodeSet codes(last_code + 1);
  for (const std::string& text : texts) {
    const std::string shown = with_stand_ins(text).value_or(text);
    EXPECT_EQ(shown.size(), text.size());
    std::size_t at = 0;
    while (const auto match = pattern.find(shown, at)) {
      add_characters(std::string_view(text).substr(match->begin, match->size()), codes);
      at = match->end;
    }
  }
  return codes;
}

std::string first_difference(const CodeSet& found, const CodeSet& expected) {
  const auto [one, other] = std::mismatch(found.begin(), found.end(), expected.begin());
  if (one == found.end()) return "";
  std::ostringstream text;
  text << "U+" << std::hex << one - found.begin() << (*one ? " is in" : " is not in");
  return text.str();
}

CodeSet all_but(CodeSet codes) {
  codes.flip();
  for (char32_t c = 0xD800; c <= 0xDFFF; ++c) codes[c] = false;
  return codes;
}

TEST(GoldenUnicode, ClassesHaveTheCharactersThatTheyHaveInTokenizers) {
  int compared = 0;
  for (const auto& [pattern, ranges] : unicode().at("classes").items()) {
    if (!pattern.starts_with('\\')) continue;
    const CodeSet expected = read_codes(ranges.get<std::string>());
    EXPECT_EQ(first_difference(matched_by(pattern), expected), "") << pattern;
    if (pattern == R"(\S)" || pattern == R"(\W)") continue;  // refused in brackets
    EXPECT_EQ(first_difference(matched_by("[#" + pattern + "]"),
                               [&] {
                                 CodeSet with_sign = expected;
                                 with_sign['#'] = true;
                                 return with_sign;
                               }()),
              "")
        << pattern << " in brackets";
    EXPECT_EQ(first_difference(matched_by("[^" + pattern + "]"), all_but(expected)), "") << pattern << " negated";
    ++compared;
  }
  EXPECT_GE(compared, 45);
}

TEST(GoldenUnicode, WordsEndWhereTheirSignsDo) {
  const CodeSet signs = read_codes(unicode().at("classes").at(R"(\w)"));
  const SplitPattern boundary(R"(\b!)"), none(R"(\B!)");
  for (char32_t c = 0; c <= last_code; ++c) {
    if (!is_code(c)) continue;
    const std::string text = utf8(c) + "!", shown = with_stand_ins(text).value_or(text);
    const std::size_t at = text.size() - 1;  // behind c, which itself may be the sign that is looked for
    ASSERT_EQ(boundary.find(shown, at).has_value(), signs[c]) << "U+" << std::hex << static_cast<std::uint32_t>(c);
    ASSERT_NE(none.find(shown, at).has_value(), signs[c]) << "U+" << std::hex << static_cast<std::uint32_t>(c);
  }
}

TEST(GoldenUnicode, DigitsCutsOffWhatTokenizersTakesForNumbers) {
  const CodeSet expected = read_codes(unicode().at("classes").at("Digits"));
  const PreTokenizer digits(Json{{"type", "Digits"}, {"individual_digits", true}}, "test");
  CodeSet found(last_code + 1);
  for (char32_t c = 0; c <= last_code; ++c)
    if (is_code(c)) found[c] = digits.cut("a" + utf8(c) + "b", true, true).words.size() == 3;
  EXPECT_EQ(first_difference(found, expected), "");
}

class GoldenUnicodeTexts : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const std::string& name) const {
    static const Json tokenizers = read_golden("bpe_tokenizers.json");
    for (const Json& of : tokenizers.at("tokenizers"))
      if (of.at("name") == name) spill(directory_ / "tokenizer.json", dump_json(of.at("tokenizer_json")));
    return load_tokenizer(directory_.path().string());
  }

  const test::ScratchDir directory_;
};

// Its added tokens have one that stands alone: foo_bar.
TEST_F(GoldenUnicodeTexts, ATokenThatStandsAloneIsNotFoundBesideSignsOfWords) {
  const auto tokenizer = load("qwen, added tokens");
  const CodeSet expected = read_codes(unicode().at("classes").at("word"));
  const std::int32_t id = tokenizer->encode("foo_bar").front();
  CodeSet found(last_code + 1);
  for (char32_t c = 0; c <= last_code; ++c)
    if (is_code(c) && !is_far(c)) found[c] = tokenizer->encode("foo_bar" + utf8(c)).front() != id;
  EXPECT_EQ(first_difference(found, expected), "");
}

TEST_F(GoldenUnicodeTexts, TextsOfNewerCharactersAreEncodedAsTokenizersDoes) {
  int compared = 0;
  const Json& texts = unicode().at("texts");
  for (const auto& [name, ids] : unicode().at("ids").items()) {
    const auto tokenizer = load(name);
    for (std::size_t i = 0; i < texts.size(); ++i, ++compared)
      EXPECT_EQ(tokenizer->encode(texts[i].get<std::string>()), ids[i].get<std::vector<std::int32_t>>())
          << name << ": " << texts[i];
  }
  EXPECT_GE(compared, 1000);
}

TEST(GoldenUnicode, NormalFormsAreThoseOfTokenizers) {
  constexpr const char* forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
  for (std::size_t form = 0; form < 4; ++form) {
    const Normalizer normalizer(Json{{"type", forms[form]}}, "test");
    for (const Json& row : unicode().at("normal_forms"))
      EXPECT_EQ(normalizer.apply(row[0].get<std::string>(), true), row[form + 1].get<std::string>())
          << forms[form] << ": " << row[0];
  }
  EXPECT_GE(unicode().at("normal_forms").size(), 185u);
}

// What the tables lean on: runs in order, apart, and each with a stand-in that needs none itself and is as long.
TEST(GoldenUnicode, StandInsNeedNone) {
  char32_t before = 0;
  for (const StandIn& run : stand_ins) {
    EXPECT_LT(before, run.first);
    EXPECT_LE(run.first, run.last);
    before = run.last;
    if (run.stand_in != number_to_digits) {
      EXPECT_EQ(stand_in_of(run.stand_in), run.stand_in);
    }
    EXPECT_EQ(utf8(run.first).size(), utf8(run.stand_in).size());
    EXPECT_EQ(utf8(run.last).size(), utf8(run.stand_in).size());
    for (const char32_t c : {run.first, run.last}) EXPECT_EQ(with_stand_ins("a" + utf8(c)), "a" + utf8(run.stand_in));
  }
  EXPECT_FALSE(with_stand_ins("a\xC3\xA9\xE4\xBD\xA0 \xF0\x9F\x99\x82").has_value());
}

TEST(GoldenUnicode, InertCharactersAreFoundWhereTheyStand) {
  for (const CodeRange& run : inert_characters)
    for (const char32_t c : {run.first, run.last}) {
      const std::string text = std::string(70, 'x') + "\xC3\xA9" + utf8(c) + "y" + utf8(c);
      EXPECT_EQ(find_inert_character(text, 0), 72u);
      EXPECT_EQ(find_inert_character(text, 73), text.size() - utf8(c).size());
      EXPECT_EQ(find_inert_character(text, text.size()), text.size());
    }
}

}  // namespace
}  // namespace smoe
