// GPT-2's letters for bytes: a byte that prints in Latin-1 stands for itself, the others for the characters from U+0100 on, so
// that a vocabulary of bytes can be written as text (Radford et al. 2019).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

namespace smoe {

constexpr bool prints_in_latin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// By byte.
constexpr std::array<char32_t, 256> byte_letters() {
  std::array<char32_t, 256> letters{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte)
    letters[static_cast<std::size_t>(byte)] = prints_in_latin1(byte) ? static_cast<char32_t>(byte) : next++;
  return letters;
}

// The byte that a letter stands for.
constexpr std::optional<std::uint8_t> byte_of_letter(char32_t letter) {
  constexpr auto letters = byte_letters();
  for (std::size_t byte = 0; byte < letters.size(); ++byte)
    if (letters[byte] == letter) return static_cast<std::uint8_t>(byte);
  return std::nullopt;
}

}  // namespace smoe
