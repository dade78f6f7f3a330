// Values and constraints of fields as text: what print_yaml writes and what messages say was expected.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace smoe {

// Intervals are written as in mathematics: "[1, 64]", "(0, inf)", "[0, 1)".
bool contains(std::string_view interval, std::int64_t value);
bool contains(std::string_view interval, double value);

// YAML that reads back to the same value. Floats are the shortest decimals that do; text is quoted where it must be.
std::string yaml_text(bool value);
std::string yaml_text(std::int64_t value);
std::string yaml_text(double value);
std::string yaml_text(const std::string& value);

// True for text that, written without quotes, is a number, a truth value or null and not text.
bool reads_as_another_type(std::string_view plain);

template <class Enum>
requires std::is_enum_v<Enum> std::string yaml_text(Enum value) {
  for (const auto& [choice, name] : choices(value)) {
    if (choice == value) return std::string(name);
  }
  return "invalid";
}

template <class T>
std::string yaml_text(const std::optional<T>& value) {
  return value ? yaml_text(*value) : "null";
}

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class Enum>
std::vector<std::string> choice_names() {
  std::vector<std::string> names;
  for (const auto& [choice, name] : choices(Enum{})) names.emplace_back(name);
  return names;
}

std::string expected_integer(std::string_view interval, bool nullable);
std::string expected_integers(std::string_view interval);
std::string expected_number(std::string_view interval, bool nullable);
std::string expected_number_or_numbers(std::string_view interval);
std::string expected_choice(const std::vector<std::string>& names);
std::string expected_text(bool nullable);
inline constexpr std::string_view expected_flag = "true or false";
inline constexpr std::string_view expected_optional_section = "null or a map of keys";
inline constexpr std::string_view expected_texts = "a list of text";

std::string joined(const std::vector<std::string>& parts, std::string_view separator = ", ");

// Collects the names of a struct's fields.
class FieldNames {
 public:
  template <class... Rest>
  void choice(const char* name, Rest&&...) {
    names.emplace_back(name);
  }
  template <class... Rest>
  void number(const char* name, Rest&&...) {
    names.emplace_back(name);
  }
  template <class... Rest>
  void integer(const char* name, Rest&&...) {
    names.emplace_back(name);
  }
  template <class Struct>
  void list(const char* name, const std::vector<Struct>&) {
    FieldNames inside;
    const Struct entry;
    Struct::visit_fields(entry, inside);
    names.push_back(std::string(name) + ": [{" + joined(inside.names) + "}]");
  }

  std::vector<std::string> names;
};

// What a struct may be given as whose `type` says what it is: its types, and its fields.
template <class Struct>
std::string expected_variant(const Struct& value) {
  FieldNames fields;
  Struct::visit_fields(value, fields);
  return joined(choice_names<decltype(Struct::type)>(), " | ") + ", or {" + joined(fields.names) + "}";
}

}  // namespace smoe
