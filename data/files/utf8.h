// Reading UTF-8 one character at a time. Surrogates, overlong forms and code points above U+10FFFF are invalid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace smoe {

struct Utf8Char {
  char32_t code = 0;
  int bytes = 0;     // 0: not a character
  bool cut = false;  // not a character yet, but more bytes could make it one
};

inline Utf8Char read_utf8(std::string_view text) {
  if (text.empty()) return {};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {static_cast<char32_t>(lead), 1, false};
  const int bytes = lead >= 0xC2 && lead <= 0xDF ? 2 : (lead & 0xF0) == 0xE0 ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
  if (bytes == 0) return {};
  char32_t code = lead & (0xFFu >> (bytes + 1));
  for (int i = 1; i < bytes; ++i) {
    if (static_cast<std::size_t>(i) == text.size()) return {0, 0, true};
    const unsigned trail = byte(static_cast<std::size_t>(i));
    // The second byte alone rules out overlong forms, surrogates and code points above U+10FFFF.
    const unsigned least = i > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned most = i > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (trail < least || trail > most) return {};
    code = code << 6 | (trail & 0x3F);
  }
  return {code, bytes, false};
}

inline bool is_utf8_trail(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// ASCII, which most of most texts is, is passed by at once.
inline bool is_valid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const int bytes = read_utf8(text.substr(at)).bytes;
    if (bytes == 0) return false;
    at += static_cast<std::size_t>(bytes);
  }
  return true;
}

}  // namespace smoe
