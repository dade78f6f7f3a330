#include "data/text/bpe/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "data/files/utf8.h"
#include "data/text/bpe/newer_characters.h"

namespace smoe {
namespace {

// GPT-2's pattern, which ByteLevel has built in.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What Digits cuts off: numbers by Rust's tables, which know some that Oniguruma's do not.
constexpr std::string_view numbers = R"([\p{N}\x{1ffff}])";
static_assert(number_to_digits == 0x1FFFF);

// Patterns in use of which cuts_at_spaces() is true: a run of letters ends in front of a space, and a space goes with the
// letter behind it.
constexpr std::array at_spaces = {
    gpt2_pattern,
    // Llama 3
    std::string_view(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
    // Qwen 2
    std::string_view(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
};

std::string shown_type(const std::string& type) { return quote_for_message(type); }

}  // namespace

PreTokenizer::PreTokenizer(const Json& pre_tokenizer, const std::string& where) {
  add(pre_tokenizer, where + ": pre_tokenizer");
}

void PreTokenizer::add(const Json& value, const std::string& where) {
  if (value.is_null()) return;
  const JsonReader step(value, where);
  const std::string& type = step.require_string("type");
  if (byte_level_ && type != "Sequence")
    throw std::runtime_error(
        fmt::format("{}: found {} behind ByteLevel, expected that to be the last step", where, shown_type(type)));
  if (type == "Sequence") {
    for (const Json& one : step.require_array("pretokenizers")) add(one, where);
  } else if (type == "Split") {
    add_split(step, value, where);
  } else if (type == "Digits") {
    const bool each = step.optional_bool("individual_digits").value_or(false);
    steps_.push_back({.split = Split{SplitPattern(std::string(numbers)),
                                     each ? Behavior::isolated : Behavior::contiguous, false, true}});
  } else if (type == "ByteLevel") {
    if (step.optional_bool("add_prefix_space").value_or(true))
      steps_.push_back({.rewrite = Rewrite{" ", Prepend::always}});
    if (step.optional_bool("use_regex").value_or(true))
      steps_.push_back({.split = Split{SplitPattern(std::string(gpt2_pattern)), Behavior::isolated, false, true}});
    byte_level_ = true;
  } else if (type == "Metaspace") {
    add_metaspace(step, where);
  } else {
    throw std::runtime_error(fmt::format(
        "{}: found a step {}, expected one of Split, Digits, ByteLevel, Metaspace: others are not supported", where,
        shown_type(type)));
  }
}

void PreTokenizer::add_split(const JsonReader& step, const Json& value, const std::string& where) {
  static constexpr std::array<std::pair<std::string_view, Behavior>, 5> behaviors = {
      {{"Removed", Behavior::removed},
       {"Isolated", Behavior::isolated},
       {"Contiguous", Behavior::contiguous},
       {"MergedWithPrevious", Behavior::with_previous},
       {"MergedWithNext", Behavior::with_next}}};
  const std::string& name = step.require_string("behavior");
  const auto behavior =
      std::find_if(behaviors.begin(), behaviors.end(), [&](const auto& one) { return one.first == name; });
  if (behavior == behaviors.end())
    throw std::runtime_error(fmt::format("{}: behavior of Split: found {}", where, shown_type(name)));
  Split split{read_split_pattern(value, where), behavior->second, step.optional_bool("invert").value_or(false)};
  split.at_spaces = split.behavior == Behavior::isolated &&
                    std::find(at_spaces.begin(), at_spaces.end(), split.pattern.pattern()) != at_spaces.end();
  steps_.push_back({.split = std::move(split)});
}

void PreTokenizer::add_metaspace(const JsonReader& step, const std::string& where) {
  const std::string replacement = step.optional_string("replacement").value_or("\xE2\x96\x81");
  if (replacement.empty()) throw std::runtime_error(where + ": replacement of Metaspace: found an empty text");
  // Older files say add_prefix_space.
  const std::string scheme = step.optional_string("prepend_scheme")
                                 .value_or(step.optional_bool("add_prefix_space").value_or(true) ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    throw std::runtime_error(fmt::format("{}: prepend_scheme of Metaspace: found {}, expected always, first or never",
                                         where, shown_type(scheme)));
  steps_.push_back({.rewrite = Rewrite{replacement, scheme == "always"  ? Prepend::always
                                                    : scheme == "first" ? Prepend::first
                                                                        : Prepend::never}});
  if (step.optional_bool("split").value_or(true))
    steps_.push_back({.split = Split{SplitPattern::of_literal(replacement), Behavior::with_next, false, true}});
}

bool PreTokenizer::cuts_at_spaces() const {
  bool cuts = false;
  for (const Step& step : steps_) {
    if (step.split && !step.split->at_spaces) return false;
    cuts = cuts ||
           (step.split && step.split->behavior != Behavior::contiguous && step.split->pattern.pattern() != numbers);
  }
  return cuts;
}

bool PreTokenizer::never_splits() const {
  return !byte_level_ &&
         std::none_of(steps_.begin(), steps_.end(), [](const Step& step) { return step.split.has_value(); });
}

char32_t PreTokenizer::space() const {
  for (const Step& step : steps_)
    if (step.rewrite) return read_utf8(step.rewrite->space).code;
  return U' ';
}

Words PreTokenizer::cut(std::string text, bool opens_segment, bool opens_text) const {
  Words words{std::move(text), {}};
  if (!words.text.empty()) words.words.push_back({0, words.text.size()});
  for (const Step& step : steps_) {
    if (step.rewrite) rewrite(*step.rewrite, opens_segment, opens_text, words);
    if (step.split) split(*step.split, words);
  }
  return words;
}

void PreTokenizer::rewrite(const Rewrite& rewrite, bool opens_segment, bool opens_text, Words& words) {
  std::string text;
  text.reserve(words.text.size() + 16);
  for (TextRange& range : words.words) {
    const std::string_view word = std::string_view(words.text).substr(range.begin, range.size());
    const std::size_t begin = text.size();
    // A step behind a split sees every word as the beginning of something; only what opens the segment can be cut off here.
    const bool opens = range.begin > 0 || opens_segment;
    const bool in_front = opens && (rewrite.prepend == Prepend::always ||
                                    (rewrite.prepend == Prepend::first && opens_text && range.begin == 0));
    if (in_front && !word.starts_with(' ') && !word.starts_with(rewrite.space)) text += rewrite.space;
    for (const char c : word)
      if (c == ' ')
        text += rewrite.space;
      else
        text += c;
    range = {begin, text.size()};
  }
  words.text = std::move(text);
}

void PreTokenizer::split(const Split& split, Words& words) {
  std::vector<TextRange> result;
  result.reserve(words.words.size() * 2 + words.text.size() / 4);
  struct Piece {
    TextRange range;
    bool match;
  };
  std::vector<Piece> pieces;
  const std::optional<std::string> other = split.pattern.is_literal() ? std::nullopt : with_stand_ins(words.text);
  const std::string_view shown = other ? *other : words.text;
  for (const TextRange& word : words.words) {
    // The pattern sees the word alone, as if nothing stood before or behind it.
    const std::string_view text = shown.substr(word.begin, word.size());
    pieces.clear();
    std::size_t at = 0;
    while (at < text.size()) {
      const auto match = split.pattern.find(text, at);
      const TextRange found = match.value_or(TextRange{text.size(), text.size()});
      if (found.begin > at) pieces.push_back({{word.begin + at, word.begin + found.begin}, split.invert});
      if (match) pieces.push_back({{word.begin + found.begin, word.begin + found.end}, !split.invert});
      at = found.end;
    }
    const std::size_t first = result.size();
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto& [range, match] = pieces[i];
      const bool follows = result.size() > first, after_match = i > 0 && pieces[i - 1].match;
      switch (split.behavior) {
        case Behavior::removed:
          if (!match) result.push_back(range);
          break;
        case Behavior::isolated: result.push_back(range); break;
        case Behavior::contiguous:
          if (follows && after_match == match)
            result.back().end = range.end;
          else
            result.push_back(range);
          break;
        case Behavior::with_previous:
          if (follows && match && !after_match)
            result.back().end = range.end;
          else
            result.push_back(range);
          break;
        // From the end: a match goes with what follows it, unless that is a match too.
        case Behavior::with_next:
          if (follows && after_match && !match)
            result.back().end = range.end;
          else
            result.push_back(range);
          break;
      }
    }
  }
  words.words = std::move(result);
}

}  // namespace smoe
