#include "data/files/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "data/files/files.h"

namespace smoe {

namespace {

// Reads the text and leaves behind how far the parser has come: the SAX interface tells no positions.
class TrackedChar {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackedChar(const char* at, const char** reached) : at_(at), reached_(reached) {}
  const char& operator*() const { return *at_; }
  TrackedChar& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  TrackedChar operator++(int) {
    TrackedChar before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TrackedChar& other) const { return at_ == other.at_; }
  bool operator!=(const TrackedChar& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

// Builds the value from the parser's events, under the limits.
class StrictBuilder final : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(std::string_view text, const std::string& where, const JsonLimits& limits, JsonOrigin origin)
      : text_(text), where_(where), limits_(limits), origin_(origin) {
    if (limits.allow_non_finite) put_numbers_for_words();
    reached_ = text_.data();
  }

  Json build() {
    // The library takes a NUL byte for the end, and would leave unread whatever hides behind it.
    const std::size_t nul = text_.find('\0');
    if (nul != std::string_view::npos) refuse("not valid JSON: a NUL byte", nul);
    const char* end = text_.data() + text_.size();
    Json::sax_parse(TrackedChar(text_.data(), &reached_), TrackedChar(end, &reached_), this);
    return std::move(root_);
  }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(std::int64_t value) override { return add(value); }
  bool number_unsigned(std::uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override {
    if (word_ == words_.size() || offset() <= words_[word_]) return add(value);
    if (unchanged_[words_[word_++]] == 'N') return add(std::numeric_limits<double>::quiet_NaN());
    return add(std::copysign(std::numeric_limits<double>::infinity(), value));
  }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }  // no such thing in text
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    const auto [place, inserted] = open_.back()->emplace(name, nullptr);
    if (!inserted) refuse(fmt::format("the key {} appears twice in one object", quote_for_message(name)), offset());
    slot_ = &place.value();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The library's text opens with its own error code and position; what follows them is the reason.
    const std::string what = error.what();
    const std::size_t line = what.find("parse error at line ");
    std::size_t reason = line == std::string::npos ? what.find("] ") : what.find(": ", line);
    reason = reason == std::string::npos ? 0 : reason + 2;
    refuse("not valid JSON: " + quote_for_message(what.substr(reason)), position > 0 ? position - 1 : 0);
  }

 private:
  std::size_t offset() const { return static_cast<std::size_t>(reached_ - text_.data()); }

  [[noreturn]] void refuse(const std::string& reason, std::size_t offset) const {
    const std::string_view before = text_.substr(0, offset);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    throw std::runtime_error(fmt::format(
        "{}:{}:{}: {}", where_, origin_.line + line - 1,
        line == 1 ? origin_.column + static_cast<std::int64_t>(column) - 1 : static_cast<std::int64_t>(column),
        reason));
  }

  // The library's parser knows no NaN and no Infinity: numbers of the same length stand in for those words, so that
  // positions stay true, and number_float() puts the values right.
  void put_numbers_for_words() {
    constexpr std::pair<std::string_view, std::string_view> stand_ins[] = {{"NaN", "0.0"}, {"Infinity", "0.000000"}};
    const auto is_word = [&](std::size_t at) {
      return at < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at])) != 0 || text_[at] == '_');
    };
    unchanged_ = text_;
    if (text_.find("NaN") == std::string_view::npos && text_.find("Infinity") == std::string_view::npos) return;
    for (std::size_t at = 0; at < text_.size(); ++at) {
      if (text_[at] == '"') {
        for (++at; at < text_.size() && text_[at] != '"'; ++at) at += text_[at] == '\\';
        continue;
      }
      for (const auto& [word, number] : stand_ins) {
        if (!text_.substr(at).starts_with(word) || is_word(at + word.size()) || (at > 0 && is_word(at - 1))) continue;
        if (changed_.empty()) changed_ = text_;
        changed_.replace(at, number.size(), number);
        words_.push_back(at);
      }
    }
    if (!changed_.empty()) text_ = changed_;
  }

  Json& place(Json value) {
    if (++values_ > limits_.max_values)
      refuse(fmt::format("more than {} values, the most that is read", limits_.max_values), offset());
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back();
    if (parent.is_object()) return *slot_ = std::move(value);
    parent.push_back(std::move(value));
    return parent.back();
  }

  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json container) {
    if (open_.size() == limits_.max_depth)
      refuse(fmt::format("nested deeper than {} levels, the most that is read", limits_.max_depth), offset());
    open_.push_back(&place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  const JsonLimits& limits_;
  JsonOrigin origin_;
  std::string_view unchanged_;      // the text as given
  std::string changed_;             // and with numbers for words, where it has such
  std::vector<std::size_t> words_;  // where they stand, in order
  std::size_t word_ = 0;            // the next of them to come
  const char* reached_ = nullptr;
  Json root_;
  std::vector<Json*> open_;  // the containers around the current position
  Json* slot_ = nullptr;     // where the value of the last key goes
  std::size_t values_ = 0;
};

std::string found(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return "the string " + quote_for_message(value.get_ref<const std::string&>());
  if (value.is_number_float() && std::isnan(value.get<double>())) return "NaN";
  if (value.is_number_float() && std::isinf(value.get<double>()))
    return value.get<double>() > 0 ? "Infinity" : "-Infinity";
  return value.dump();
}

[[noreturn]] void refuse_value(const Json& value, const std::string& where, const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: found {}, expected {}", where, found(value), expected));
}

template <class J>
void refuse_non_finite(const J& value) {
  if (value.is_number_float() && !std::isfinite(value.template get<double>()))
    throw std::runtime_error("JSON has no way to write infinity or not-a-number");
  if (value.is_structured())
    for (const J& child : value) refuse_non_finite(child);
}

template <class J>
std::string dump_checked(const J& value, int indent) {
  refuse_non_finite(value);
  try {
    return value.dump(indent);
  } catch (const nlohmann::json::exception&) {
    throw std::runtime_error("a string to be written as JSON is not valid UTF-8");
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits, JsonOrigin origin) {
  if (text.size() > limits.max_bytes)
    throw std::runtime_error(
        fmt::format("{}: {} bytes of JSON, expected at most {}", where, text.size(), limits.max_bytes));
  return StrictBuilder(text, where, limits, origin).build();
}

Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

std::string dump_json(const Json& value, int indent) { return dump_checked(value, indent); }
std::string dump_json(const OrderedJson& value, int indent) { return dump_checked(value, indent); }

void write_json_file(const std::filesystem::path& path, const Json& value) {
  write_file_atomically(path, dump_json(value, 2) + "\n");
}
void write_json_file(const std::filesystem::path& path, const OrderedJson& value) {
  write_file_atomically(path, dump_json(value, 2) + "\n");
}

std::string quote_for_message(std::string_view text) {
  constexpr std::size_t longest = 200;
  const bool cut = text.size() > longest;
  const Json shown = std::string(text.substr(0, longest));
  return shown.dump(-1, ' ', true, Json::error_handler_t::replace) + (cut ? "..." : "");
}

std::string keys_for_message(const Json& object) {
  constexpr std::size_t most = 8;
  std::string keys;
  std::size_t count = 0;
  for (const auto& [key, value] : object.items()) {
    if (++count > most) break;
    keys += (keys.empty() ? "" : ", ") + quote_for_message(key);
  }
  return keys.empty() ? "no key" : keys + (object.size() > most ? ", ..." : "");
}

std::int64_t json_int(const Json& value, std::int64_t min, std::int64_t max, const std::string& where) {
  const bool fits =
      value.is_number_unsigned()
          ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
          : value.is_number_integer();
  if (fits) {
    const auto number = value.get<std::int64_t>();
    if (number >= min && number <= max) return number;
  }
  refuse_value(value, where, fmt::format("an integer from {} to {}", min, max));
}

const std::string& json_string(const Json& value, const std::string& where) {
  if (!value.is_string()) refuse_value(value, where, "a string");
  return value.get_ref<const std::string&>();
}

JsonReader::JsonReader(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) refuse_value(object, where_, "an object");
}

const Json& JsonReader::at(const std::string& key, const char* expected) const {
  const auto place = object_->find(key);
  if (place == object_->end())
    throw std::runtime_error(
        fmt::format("{}: the key {} is missing, expected {}", where_, quote_for_message(key), expected));
  return *place;
}

bool JsonReader::absent(const std::string& key) const {
  const auto place = object_->find(key);
  return place == object_->end() || place->is_null();
}

void JsonReader::refuse(const std::string& key, const std::string& expected) const {
  refuse_value(object_->at(key), where_ + ": " + quote_for_message(key), expected);
}

std::int64_t JsonReader::require_int(const std::string& key, std::int64_t min, std::int64_t max) const {
  return json_int(at(key, "an integer"), min, max, where_ + ": " + quote_for_message(key));
}

std::uint64_t JsonReader::require_u64(const std::string& key) const {
  const Json& value = at(key, "an integer");
  // A value set by a program may be a signed integer that is not negative; a parsed one never is.
  const bool fits = value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
  if (!fits) refuse(key, "an integer from 0 to 2^64 - 1");
  return value.get<std::uint64_t>();
}

double JsonReader::require_number(const std::string& key) const {
  const Json& value = at(key, "a number");
  if (!value.is_number()) refuse(key, "a number");
  constexpr std::int64_t exact = std::int64_t{1} << 53;  // up to here every integer is a double
  if (value.is_number_integer()) return static_cast<double>(require_int(key, -exact, exact));
  const auto number = value.get<double>();
  if (!std::isfinite(number)) refuse(key, "a finite number");
  return number;
}

bool JsonReader::require_bool(const std::string& key) const {
  const Json& value = at(key, "true or false");
  if (!value.is_boolean()) refuse(key, "true or false");
  return value.get<bool>();
}

const std::string& JsonReader::require_string(const std::string& key) const {
  const Json& value = at(key, "a string");
  if (!value.is_string()) refuse(key, "a string");
  return value.get_ref<const std::string&>();
}

const Json& JsonReader::require_array(const std::string& key) const {
  const Json& value = at(key, "an array");
  if (!value.is_array()) refuse(key, "an array");
  return value;
}

JsonReader JsonReader::require_object(const std::string& key) const {
  const Json& value = at(key, "an object");
  if (!value.is_object()) refuse(key, "an object");
  return JsonReader(value, where_ + ": " + quote_for_message(key));
}

std::optional<std::int64_t> JsonReader::optional_int(const std::string& key, std::int64_t min, std::int64_t max) const {
  if (absent(key)) return std::nullopt;
  return require_int(key, min, max);
}

std::optional<double> JsonReader::optional_number(const std::string& key) const {
  if (absent(key)) return std::nullopt;
  return require_number(key);
}

std::optional<bool> JsonReader::optional_bool(const std::string& key) const {
  if (absent(key)) return std::nullopt;
  return require_bool(key);
}

std::optional<std::string> JsonReader::optional_string(const std::string& key) const {
  if (absent(key)) return std::nullopt;
  return require_string(key);
}

std::optional<JsonReader> JsonReader::optional_object(const std::string& key) const {
  if (absent(key)) return std::nullopt;
  return require_object(key);
}

void JsonReader::refuse_other_keys(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_->items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw std::runtime_error(
          fmt::format("{}: unknown key {}, expected {}", where_, quote_for_message(key), fmt::join(known, ", ")));
}

}  // namespace smoe
