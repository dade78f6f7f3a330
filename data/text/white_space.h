// Unicode's White_Space at the ends of texts.
#pragma once

#include <cstddef>
#include <string_view>

#include "data/files/utf8.h"

namespace smoe {

constexpr bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Where the run of white space that begins at `at` ends.
inline std::size_t end_of_white_space(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char next = read_utf8(text.substr(at));
    if (next.bytes == 0 || !is_white_space(next.code)) break;
    at += static_cast<std::size_t>(next.bytes);
  }
  return at;
}

// Where the run of white space that ends at `at` begins, at or after `from`.
inline std::size_t begin_of_white_space(std::string_view text, std::size_t from, std::size_t at) {
  while (at > from) {
    std::size_t begin = at - 1;
    while (begin > from && at - begin < 4 && is_utf8_trail(text[begin])) --begin;
    const Utf8Char last = read_utf8(text.substr(begin, at - begin));
    if (static_cast<std::size_t>(last.bytes) != at - begin || !is_white_space(last.code)) break;
    at = begin;
  }
  return at;
}

}  // namespace smoe
