#include "data/files/json_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>

namespace smoe {
namespace {

// Goes through a text that has been parsed, and so is in order.
class JsonWalk {
 public:
  explicit JsonWalk(std::string_view text) : text_(text) { skip_space(); }

  std::size_t at() const { return at_; }
  bool is_at(char c) const { return at_ < text_.size() && text_[at_] == c; }

  // Into the object that begins here, to the value of a key, given as quote_for_message() gives it; where the key stands. Without it
  // the walk is of no more use.
  std::optional<std::size_t> enter_key(const std::string& quoted) {
    const std::string_view plain = std::string_view(quoted).substr(1, quoted.size() - 2);
    while (step()) {
      const std::size_t place = at_;
      const std::string_view key = string();
      skip_space();
      ++at_;  // the colon
      skip_space();
      const bool is_plain = key.find('\\') == std::string_view::npos &&
                            std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c <= '~'; }) &&
                            key.size() <= 200;
      if (is_plain ? key == plain : quoted == quoted_key(place, key.size() + 2)) return place;
      skip_value();
    }
    return std::nullopt;
  }

  // Into the array that begins here, to an element.
  std::optional<std::size_t> enter_element(std::size_t index) {
    while (step()) {
      if (index-- == 0) return at_;
      skip_value();
    }
    return std::nullopt;
  }

 private:
  void skip_space() { at_ = std::min(text_.size(), text_.find_first_not_of(" \t\r\n", at_)); }

  // To the next member of what has begun; false at its end.
  bool step() {
    if (is_at('}') || is_at(']')) return false;
    ++at_;  // what opens it, or the comma
    skip_space();
    return at_ < text_.size() && text_[at_] != '}' && text_[at_] != ']';
  }

  // Past the string that begins here; what stands between its quotes.
  std::string_view string() {
    const std::size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_ + 1, text_.size());
    return text_.substr(begin, at_ - 1 - begin);
  }

  // Past the value that begins here, to the comma or bracket behind it.
  void skip_value() {
    std::size_t depth = 0;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"') {
        string();
        --at_;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        if (depth-- == 0) return;
      } else if (c == ',' && depth == 0) {
        return;
      }
    }
  }

  std::string quoted_key(std::size_t place, std::size_t size) const {
    return quote_for_message(Json::parse(text_.substr(place, size)).get<std::string>());
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// Takes a key off the front of a path, as quote_for_message() gives it: plain letters, or in quotes; ": " or "[" stands behind it.
// Empty where there is none.
std::string take_key(std::string_view& path) {
  std::size_t end = 0;
  if (path.starts_with('"')) {
    for (end = 1; end < path.size() && path[end] != '"'; ++end)
      if (path[end] == '\\') ++end;
    ++end;
    if (path.substr(std::min(end, path.size())).starts_with("...")) end += 3;  // a long one, cut
  } else {
    end = std::min(path.size(), path.find_first_of(":[ "));
  }
  const std::string_view rest = path.substr(std::min(end, path.size()));
  if (end == 0 || !(rest.starts_with(": ") || rest.starts_with("["))) return {};
  const std::string key(path.substr(0, end));
  path = rest;
  return key.starts_with('"') ? key : '"' + key + '"';
}

// "[3]" or ": entry 3" off the front of a path.
std::optional<std::size_t> take_index(std::string_view& path) {
  for (const std::string_view opening : {std::string_view("["), std::string_view(": entry ")}) {
    if (!path.starts_with(opening)) continue;
    std::size_t index = 0;
    const char* const begin = path.data() + opening.size();
    const auto [end, error] = std::from_chars(begin, path.data() + path.size(), index);
    if (error != std::errc()) return std::nullopt;
    path.remove_prefix(static_cast<std::size_t>(end - path.data()));
    if (path.starts_with(']')) path.remove_prefix(1);
    return index;
  }
  return std::nullopt;
}

}  // namespace

std::string with_place_in_json(const std::string& message, const std::string& where, std::string_view text) {
  if (!message.starts_with(where + ": ")) return message;
  std::string_view path = std::string_view(message).substr(where.size() + 2);
  JsonWalk walk(text);
  std::optional<std::size_t> place, next;
  do {
    next.reset();
    if (walk.is_at('{')) {
      if (const std::string key = take_key(path); !key.empty()) next = walk.enter_key(key);
      if (next && path.starts_with(": ") && !(walk.is_at('[') && path.starts_with(": entry "))) path.remove_prefix(2);
    } else if (walk.is_at('[')) {
      if (const auto index = take_index(path)) next = walk.enter_element(*index);
      if (next && path.starts_with(": ")) path.remove_prefix(2);
    }
    if (next) place = next;
  } while (next);
  if (!place) return message;
  const std::string_view before = text.substr(0, *place);
  return fmt::format("{}:{}:{}{}", where, 1 + std::count(before.begin(), before.end(), '\n'),
                     before.size() - (before.rfind('\n') + 1) + 1, message.substr(where.size()));
}

}  // namespace smoe
