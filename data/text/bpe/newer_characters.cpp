#include "data/text/bpe/newer_characters.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>

#include "data/files/utf8.h"
#include "data/text/bpe/newer_characters_table.h"

namespace smoe {
namespace {

// The least byte that opens a character of several.
constexpr unsigned first_lead = 0xC0;

struct Utf8Bytes {
  std::array<char, 4> bytes{};
  std::size_t size = 0;
};

constexpr Utf8Bytes utf8_bytes(char32_t c) {
  const auto part = [c](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {{static_cast<char>(c)}, 1};
  if (c < 0x800) return {{static_cast<char>(0xC0 | (c >> 6)), part(0)}, 2};
  if (c < 0x10000) return {{static_cast<char>(0xE0 | (c >> 12)), part(6), part(0)}, 3};
  return {{static_cast<char>(0xF0 | (c >> 18)), part(12), part(6), part(0)}, 4};
}

// By a character's first two bytes, whether a table may have it: a quick answer for most.
class Beginnings {
 public:
  template <class Range, std::size_t count>
  constexpr explicit Beginnings(const Range (&ranges)[count]) {
    for (const Range& range : ranges) {
      const char32_t block = range.first < 0x800 ? 1 : range.first < 0x10000 ? 0x40 : 0x1000;
      for (char32_t c = range.first / block * block; c <= range.last; c += block) known_[place(utf8_bytes(c))] = true;
    }
  }

  // Where the next may begin, at or after `from`.
  std::size_t find(std::string_view text, std::size_t from) const {
    constexpr std::size_t stretch = 64;
    for (std::size_t at = from; at < text.size();) {
      const std::size_t end = std::min(text.size(), at + stretch);
      unsigned char most = 0;
      for (std::size_t i = at; i < end; ++i) most = std::max(most, static_cast<unsigned char>(text[i]));
      if (most < first_lead) {
        at = end;
        continue;
      }
      for (; at < end; ++at)
        if (static_cast<unsigned char>(text[at]) >= first_lead && at + 1 < text.size() &&
            known_[place(text[at], text[at + 1])])
          return at;
    }
    return text.size();
  }

 private:
  static constexpr std::size_t place(char lead, char second) {
    return (static_cast<unsigned char>(lead) - first_lead) * 64 + (static_cast<unsigned char>(second) & 0x3F);
  }
  static constexpr std::size_t place(const Utf8Bytes& c) { return place(c.bytes[0], c.bytes[1]); }

  std::array<bool, 64 * 64> known_{};
};

template <class Range, std::size_t count>
const Range* find_range(const Range (&ranges)[count], char32_t c) {
  const Range* const range = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                              [](const Range& one, char32_t code) { return one.last < code; });
  return range != std::end(ranges) && range->first <= c ? range : nullptr;
}

constexpr Beginnings beginnings_with_stand_ins(stand_ins), beginnings_of_inert(inert_characters);

}  // namespace

char32_t stand_in_of(char32_t c) {
  const StandIn* const range = find_range(stand_ins, c);
  return range ? range->stand_in : c;
}

std::optional<std::string> with_stand_ins(std::string_view text) {
  std::optional<std::string> shown;
  for (std::size_t at = 0; (at = beginnings_with_stand_ins.find(text, at)) < text.size();) {
    const Utf8Char c = read_utf8(text.substr(at));
    const StandIn* const range = find_range(stand_ins, c.code);
    if (range) {
      if (!shown) shown.emplace(text);
      const Utf8Bytes made = utf8_bytes(range->stand_in);
      std::copy_n(made.bytes.begin(), made.size, shown->begin() + static_cast<std::ptrdiff_t>(at));
    }
    at += static_cast<std::size_t>(std::max(c.bytes, 1));
  }
  return shown;
}

std::size_t find_inert_character(std::string_view text, std::size_t from) {
  for (std::size_t at = from; (at = beginnings_of_inert.find(text, at)) < text.size();) {
    const Utf8Char c = read_utf8(text.substr(at));
    if (find_range(inert_characters, c.code)) return at;
    at += static_cast<std::size_t>(std::max(c.bytes, 1));
  }
  return text.size();
}

}  // namespace smoe
