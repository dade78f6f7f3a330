#include "configs/field_text.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <stdexcept>

#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

template <class Number>
Number bound(std::string_view text) {
  if (text == "inf") return std::numeric_limits<Number>::max();
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw std::logic_error(fmt::format("'{}' is not a bound", text));
  }
  return value;
}

template <class Number>
bool lies_in(std::string_view interval, Number value) {
  const std::size_t comma = interval.find(", ");
  if (interval.size() < 6 || comma == std::string_view::npos) {
    throw std::logic_error(fmt::format("'{}' is not an interval", interval));
  }
  const Number low = bound<Number>(interval.substr(1, comma - 1));
  const Number high = bound<Number>(interval.substr(comma + 2, interval.size() - comma - 3));
  const bool above = interval.front() == '(' ? value > low : value >= low;
  const bool unbounded = interval.ends_with("inf)");
  return above && (interval.back() == ')' && !unbounded ? value < high : value <= high);  // false for NaN
}

// Letters, digits and the marks of paths, with nothing that YAML reads as structure.
bool is_plain(std::string_view text) {
  const auto safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_./+-").find(c) != std::string_view::npos;
  };
  if (text.empty() || text.front() == '-') return false;
  for (const char c : text) {
    if (!safe(c)) return false;
  }
  return !text.starts_with("...") && !reads_as_another_type(text);
}

}  // namespace

bool contains(std::string_view interval, std::int64_t value) { return lies_in(interval, value); }
bool contains(std::string_view interval, double value) { return lies_in(interval, value); }

std::string yaml_text(bool value) { return value ? "true" : "false"; }
std::string yaml_text(std::int64_t value) { return fmt::format("{}", value); }

std::string yaml_text(double value) {
  const std::string shortest = fmt::format("{}", value);
  const bool looks_whole = shortest.find_first_of(".en") == std::string::npos;
  return looks_whole ? shortest + ".0" : shortest;
}

std::string yaml_text(const std::string& value) {
  if (is_plain(value)) return value;
  std::string quoted = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      quoted += fmt::format("\\x{:02x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

bool reads_as_another_type(std::string_view plain) {
  // Also the words that other readers of YAML take for truth values and null.
  static constexpr std::string_view words[] = {"true", "false", "yes", "no", "on", "off", "null", "~", ".inf", ".nan"};
  const std::string lower = lower_case(plain);
  for (const std::string_view word : words) {
    if (lower == word) return true;
  }
  return looks_like_number(plain);
}

std::string expected_integer(std::string_view interval, bool nullable) {
  return fmt::format("an integer in {}{}", interval, nullable ? " or null" : "");
}
std::string expected_integers(std::string_view interval) { return fmt::format("a list of integers in {}", interval); }
std::string expected_number(std::string_view interval, bool nullable) {
  return fmt::format("a finite number in {}{}", interval, nullable ? " or null" : "");
}
std::string expected_number_or_numbers(std::string_view interval) {
  return fmt::format("a finite number in {}, or a list of one a layer", interval);
}
std::string expected_choice(const std::vector<std::string>& names) { return "one of " + joined(names); }
std::string expected_text(bool nullable) { return nullable ? "text or null" : "text"; }

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

}  // namespace smoe
