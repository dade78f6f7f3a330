#include "data/import/import_jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "data/files/json.h"

namespace smoe {

namespace {

constexpr std::string_view json_blanks = " \t\r\n";

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

// The keys of an object, for a message: the first few.
std::string keys_of(const Json& object) {
  constexpr std::size_t most = 8;
  std::string keys;
  std::size_t count = 0;
  for (const auto& [key, value] : object.items()) {
    if (++count > most) break;
    keys += (keys.empty() ? "" : ", ") + quote_for_message(key);
  }
  return keys.empty() ? "no key" : keys + (object.size() > most ? ", ..." : "");
}

std::string document_of(std::string_view text, const std::string& path, JsonOrigin origin,
                        const std::string& text_field) {
  const Json object = parse_json(text, path, {.allow_non_finite = true}, origin);
  const JsonReader reader(object, fmt::format("{}:{}:{}", path, origin.line, origin.column));
  if (!reader.has(text_field))
    throw std::runtime_error(
        fmt::format("{}: the key {} is missing, expected a string; the object has {} (--text-field names "
                    "the key of the text)",
                    reader.where(), quote_for_message(text_field), keys_of(object)));
  return reader.require_string(text_field);
}

}  // namespace

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::string_view without_byte_order_mark(std::string_view text) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  if (text.starts_with(mark)) text.remove_prefix(mark.size());
  return text;
}

bool JsonlLines::next_document(const std::string& text_field, std::string& document) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::int64_t number = first_line++;
    if (is_blank(line)) continue;
    const std::size_t begin = line.find_first_not_of(" \t\r");
    line.remove_prefix(begin);
    document = document_of(line, path, {number, static_cast<std::int64_t>(begin) + 1}, text_field);
    return true;
  }
  return false;
}

JsonlFile::JsonlFile(const std::filesystem::path& path)
    : path_(path.string()), file_(std::make_shared<MappedFile>(path)), rest_(without_byte_order_mark(text_of(*file_))) {
  mark_bytes_ = file_->bytes().size() - rest_.size();
}

bool JsonlFile::next_lines(std::size_t bytes, JsonlLines& lines) {
  if (rest_.empty()) return false;
  const std::size_t newline =
      bytes <= rest_.size() ? rest_.find('\n', std::max<std::size_t>(bytes, 1) - 1) : rest_.npos;
  const std::size_t end = newline == rest_.npos ? rest_.size() : newline + 1;
  lines = {file_, path_, rest_.substr(0, end), line_, end + mark_bytes_};
  mark_bytes_ = 0;
  line_ += std::count(lines.text.begin(), lines.text.end(), '\n');
  rest_.remove_prefix(end);
  return true;
}

bool JsonObjects::next_document(const std::string& text_field, std::string& document) {
  if (next == objects.size()) return false;
  const Object& object = objects[next++];
  document = document_of(object.text, path, object.origin, text_field);
  return true;
}

JsonFile::JsonFile(const std::filesystem::path& path)
    : path_(path.string()), file_(std::make_shared<MappedFile>(path)), text_(without_byte_order_mark(text_of(*file_))) {
  mark_bytes_ = file_->bytes().size() - text_.size();
  skip_blanks();
  in_array_ = at_ < text_.size() && text_[at_] == '[';
  if (in_array_) advance(1);
}

void JsonFile::refuse(const std::string& what) const {
  throw std::runtime_error(fmt::format("{}:{}:{}: {}", path_, place_.line, place_.column, what));
}

void JsonFile::advance(std::size_t bytes) {
  const std::string_view passed = text_.substr(at_, bytes);
  at_ += bytes;
  place_.line += std::count(passed.begin(), passed.end(), '\n');
  const std::size_t newline = passed.rfind('\n');
  place_.column = newline == passed.npos ? place_.column + static_cast<std::int64_t>(bytes)
                                         : static_cast<std::int64_t>(bytes - newline);
}

void JsonFile::skip_blanks() {
  const std::size_t next = text_.find_first_not_of(json_blanks, at_);
  advance((next == text_.npos ? text_.size() : next) - at_);
}

// Of the value at at_: up to the bracket that closes it, strings being passed over; of one without brackets, up to what
// cannot belong to it. What lies between is the parser's to judge.
std::size_t JsonFile::value_bytes() const {
  std::size_t depth = 0;
  for (std::size_t at = at_; at < text_.size(); ++at) {
    switch (text_[at]) {
      case '"':
        for (++at; at < text_.size() && text_[at] != '"'; ++at) at += text_[at] == '\\';
        break;
      case '{':
      case '[': ++depth; break;
      case '}':
      case ']':
        if (depth == 0) return std::max<std::size_t>(at - at_, 1);
        if (--depth == 0) return at + 1 - at_;
        break;
      case ',':
      case '\n':
        if (depth == 0) return std::max<std::size_t>(at - at_, 1);
        break;
      default: break;
    }
  }
  if (depth > 0)
    refuse(fmt::format("what begins with {} is never closed: is the file cut short?",
                       quote_for_message(text_.substr(at_, 1))));
  return text_.size() - at_;
}

bool JsonFile::next_object(JsonObjects::Object& object) {
  skip_blanks();
  const bool more = at_ < text_.size();
  if (in_array_ && !more) refuse("the array is never closed: is the file cut short?");
  if (!more) return false;
  if (ended_) refuse(fmt::format("{} follows the array's ']'", quote_for_message(text_.substr(at_, 1))));
  if (in_array_) {
    if (text_[at_] == ']') {
      advance(1);
      in_array_ = false;
      ended_ = true;
      skip_blanks();
      if (at_ < text_.size()) return next_object(object);  // which refuses it
      return false;
    }
    if (!first_) {
      if (text_[at_] != ',')
        refuse(fmt::format("found {}, expected ',' or ']' after an object of the array",
                           quote_for_message(text_.substr(at_, 1))));
      advance(1);
      skip_blanks();
      if (at_ < text_.size() && text_[at_] == ']')
        refuse("found \"]\" after a comma, expected an object: JSON has no comma behind the last one");
    }
  }
  first_ = false;
  const std::size_t bytes = value_bytes();
  object = {text_.substr(at_, bytes), place_};
  advance(bytes);
  return true;
}

bool JsonFile::next_objects(std::size_t bytes, JsonObjects& objects) {
  objects = {file_, path_, {}, 0, 0};
  JsonObjects::Object object;
  while ((objects.objects.empty() || at_ - taken_ < bytes) && next_object(object)) objects.objects.push_back(object);
  skip_blanks();
  if (in_array_ && at_ < text_.size() && text_[at_] == ']') next_object(object);  // the end belongs to the last objects
  objects.bytes = at_ - taken_ + mark_bytes_;
  taken_ = at_;
  mark_bytes_ = 0;
  return !objects.objects.empty();
}

}  // namespace smoe
