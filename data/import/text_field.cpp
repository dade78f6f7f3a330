#include "data/import/text_field.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace smoe {

namespace {

void check_key(const JsonReader& reader, const std::string& key, const char* expected) {
  if (!reader.has(key))
    throw std::runtime_error(fmt::format(
        "{}: the key {} is missing, expected {}; the object has {} (--text-field names the key of the text)",
        reader.where(), quote_for_message(key), expected, keys_for_message(reader.object())));
}

}  // namespace

TextField::TextField(std::string name) : name_(std::move(name)) {
  for (std::size_t begin = 0; begin <= name_.size();) {
    const std::size_t end = std::min(name_.find('.', begin), name_.size());
    path_.push_back(name_.substr(begin, end - begin));
    begin = end + 1;
  }
}

const std::string& TextField::of(const Json& object, const std::string& where) const {
  JsonReader reader(object, where);
  if (reader.has(name_) || path_.size() == 1) {
    check_key(reader, name_, "a string");
    return reader.require_string(name_);
  }
  for (std::size_t i = 0; i + 1 < path_.size(); ++i) {
    check_key(reader, path_[i], "an object");
    reader = reader.require_object(path_[i]);
  }
  check_key(reader, path_.back(), "a string");
  return reader.require_string(path_.back());
}

}  // namespace smoe
