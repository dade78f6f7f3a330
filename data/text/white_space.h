// White space at the ends of texts: Unicode's, and Python's.
#pragma once

#include <cstddef>
#include <string_view>

#include "data/files/utf8.h"

namespace smoe {

constexpr bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// What str.strip() takes off in Python, and with it `trim` of Jinja: the separators U+001C to U+001F too.
constexpr bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

// Where the run of white space that begins at `at` ends.
template <class IsSpace = decltype(&is_white_space)>
std::size_t end_of_white_space(std::string_view text, std::size_t at, IsSpace is_space = is_white_space) {
  while (at < text.size()) {
    const Utf8Char next = read_utf8(text.substr(at));
    if (next.bytes == 0 || !is_space(next.code)) break;
    at += static_cast<std::size_t>(next.bytes);
  }
  return at;
}

// Where the run of white space that ends at `at` begins, at or after `from`.
template <class IsSpace = decltype(&is_white_space)>
std::size_t begin_of_white_space(std::string_view text, std::size_t from, std::size_t at,
                                 IsSpace is_space = is_white_space) {
  while (at > from) {
    std::size_t begin = at - 1;
    while (begin > from && at - begin < 4 && is_utf8_trail(text[begin])) --begin;
    const Utf8Char last = read_utf8(text.substr(begin, at - begin));
    if (static_cast<std::size_t>(last.bytes) != at - begin || !is_space(last.code)) break;
    at = begin;
  }
  return at;
}

}  // namespace smoe
