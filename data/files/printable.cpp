#include "data/files/printable.h"

#include <fmt/format.h>

#include "data/files/utf8.h"

namespace smoe {

namespace {

// C0, DEL and C1, which a terminal takes for escapes too (U+009B is ESC [).
bool is_control_character(char32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0); }

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const Utf8Char next = read_utf8(text);
    const std::size_t bytes = next.bytes > 0 ? static_cast<std::size_t>(next.bytes) : 1;
    const bool plain = next.bytes > 0 && (!is_control_character(next.code) || next.code == '\n' || next.code == '\t');
    if (plain) {
      shown += text.substr(0, bytes);
    } else {
      for (const char c : text.substr(0, bytes)) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    text.remove_prefix(bytes);
  }
  return shown;
}

}  // namespace smoe
