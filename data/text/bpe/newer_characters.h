// Characters of which versions of Unicode say different things.
//
// Python's tokenizers goes by Unicode 16 in its patterns and by Unicode 9 in its normal forms; PCRE2 and utf8proc go by whatever
// version they were built with. The tables here hold for all of 14 to 18.
//
// A pattern is not rewritten, which would cost every class a long list of ranges. It is shown the text with other characters in
// these ones' places, of the same general category, script and length in bytes, of which all versions say the same; what it finds are
// places in the text as it is. A text without any, as nearly all are, is only looked through.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace smoe {

struct StandIn {
  char32_t first = 0, last = 0, stand_in = 0;
};
struct CodeRange {
  char32_t first = 0, last = 0;
};

// Stands for characters that are unassigned to patterns, and numbers to Digits.
constexpr char32_t number_to_digits = 0x1FFFF;

// The character itself where nothing has to stand for it.
char32_t stand_in_of(char32_t c);
// What a pattern is shown of a text (valid UTF-8), of the same length; none: the text itself.
std::optional<std::string> with_stand_ins(std::string_view text);

// The first character at or after `from` that normal forms leave as it is, moving nothing past it and joining it with nothing, though
// newer tables know better; the text's size where there is none.
std::size_t find_inert_character(std::string_view text, std::size_t from);

}  // namespace smoe
