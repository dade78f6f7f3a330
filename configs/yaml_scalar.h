// The strict types of plain scalars. yaml-cpp's own conversions take 010 for 8, yes for true and .nan for a number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace smoe {

// Decimal digits with an optional sign, no leading zero: not 010, 0x10, 1_000, 1.0 or 1e3.
std::optional<std::int64_t> parse_integer(std::string_view plain);

// A decimal number that a double can hold; never NaN or infinite, not 010.5 or 0x1p3.
std::optional<double> parse_number(std::string_view plain);

// true or false, in these letters.
std::optional<bool> parse_flag(std::string_view plain);

// Digits in some notation, readable here or not: 010, 0x10, 1_000, 1e999.
bool looks_like_number(std::string_view plain);

// What the writer of a refused scalar probably meant: 1e3 -> 1000, 010 -> 10, yes -> true.
std::optional<std::string> meant_integer(std::string_view plain);
std::optional<std::string> meant_flag(std::string_view plain);

std::string lower_case(std::string_view text);

}  // namespace smoe
