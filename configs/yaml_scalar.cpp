#include "configs/yaml_scalar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <initializer_list>

namespace smoe {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view without_sign(std::string_view text) {
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) text.remove_prefix(1);
  return text;
}

std::string_view without_plus(std::string_view text) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  return text;
}

// Length of the run of digits that text starts with.
std::size_t digits(std::string_view text) {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin());
}

bool has_leading_zero(std::string_view unsigned_text) { return digits(unsigned_text) > 1 && unsigned_text[0] == '0'; }

// digits [. digits] [e digits], with digits on one side of the point at least
bool is_decimal(std::string_view text) {
  text = without_sign(text);
  if (has_leading_zero(text)) return false;
  const std::size_t whole = digits(text);
  text.remove_prefix(whole);
  std::size_t fraction = 0;
  if (!text.empty() && text.front() == '.') {
    fraction = digits(text.substr(1));
    text.remove_prefix(1 + fraction);
  }
  if (whole + fraction == 0) return false;
  if (text.empty()) return true;
  if (text.front() != 'e' && text.front() != 'E') return false;
  text = without_sign(text.substr(1));
  return !text.empty() && digits(text) == text.size();
}

template <class Number>
std::optional<Number> converted(std::string_view text) {
  text = without_plus(text);
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::int64_t> parse_integer(std::string_view plain) {
  const std::string_view text = without_sign(plain);
  if (text.empty() || digits(text) != text.size() || has_leading_zero(text)) return std::nullopt;
  return converted<std::int64_t>(plain);
}

std::optional<double> parse_number(std::string_view plain) {
  if (!is_decimal(plain)) return std::nullopt;
  return converted<double>(plain);
}

std::optional<bool> parse_flag(std::string_view plain) {
  if (plain == "true") return true;
  if (plain == "false") return false;
  return std::nullopt;
}

bool looks_like_number(std::string_view plain) {
  std::string_view text = without_sign(plain);
  if (is_decimal(text)) return true;
  if (text.empty() || !is_digit(text.front())) return false;
  const std::string lower = lower_case(text);
  const bool hexadecimal = lower.starts_with("0x");
  const bool octal = lower.starts_with("0o");
  const std::string_view allowed = hexadecimal ? "0123456789abcdef_" : "0123456789_";
  const std::string_view body = std::string_view(lower).substr(hexadecimal || octal ? 2 : 0);
  return !body.empty() && body.find_first_not_of(allowed) == std::string_view::npos;
}

std::optional<std::string> meant_integer(std::string_view plain) {
  std::string text(plain);
  std::erase(text, '_');
  const bool negative = text.starts_with('-');
  std::string_view magnitude = without_sign(text);
  while (has_leading_zero(magnitude)) magnitude.remove_prefix(1);
  const auto number = parse_number(magnitude);
  if (!number || std::floor(*number) != *number || std::abs(*number) > 1e15) return std::nullopt;
  return fmt::format("{}{}", negative ? "-" : "", static_cast<std::int64_t>(*number));
}

std::optional<std::string> meant_flag(std::string_view plain) {
  const std::string lower = lower_case(plain);
  const auto is_one_of = [&](std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), lower) != words.end();
  };
  if (is_one_of({"true", "yes", "on", "1", "y"})) return "true";
  if (is_one_of({"false", "no", "off", "0", "n"})) return "false";
  return std::nullopt;
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace smoe
