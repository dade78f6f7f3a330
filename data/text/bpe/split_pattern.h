// A regular expression of a tokenizer.json, by which texts are cut into words.
//
// Those files are written for Oniguruma in Ruby's syntax; this translates to PCRE2 what both have, and refuses by name what the
// two would read differently: \h, inline options but i, intersections and nesting of character classes.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/files/json.h"

namespace smoe {

struct TextRange {
  std::size_t begin = 0, end = 0;  // bytes

  std::size_t size() const { return end - begin; }
  bool operator==(const TextRange&) const = default;
};

class SplitPattern {
 public:
  // Throws std::runtime_error, with the place in the pattern, for one that does not compile or is refused.
  explicit SplitPattern(const std::string& pattern);
  // The text itself, whatever signs are in it.
  static SplitPattern of_literal(const std::string& text);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;

  // The first match at or after `from` that is not empty. text: valid UTF-8, with_stand_ins() where it is no literal; `from` stands between characters. May be called from
  // several threads at once. Throws std::runtime_error where the match takes more steps than is sane.
  std::optional<TextRange> find(std::string_view text, std::size_t from) const;

  const std::string& pattern() const { return pattern_; }  // as it was given
  bool is_literal() const { return !code_; }

 private:
  SplitPattern() = default;

  struct Code;
  std::string pattern_;
  std::string literal_;  // in place of an expression
  std::unique_ptr<Code> code_;
};

// The pattern of a step of a tokenizer.json that has one: {"String": ...} or {"Regex": ...}. Throws std::runtime_error.
SplitPattern read_split_pattern(const Json& step, const std::string& where);

// The pattern in PCRE2's syntax.
std::string translate_from_oniguruma(const std::string& pattern);

}  // namespace smoe
