#include "data/import/import_jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

namespace smoe {

namespace {

constexpr std::string_view json_blanks = " \t\r\n";
constexpr std::size_t longest_object = JsonLimits{}.max_bytes;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

// Where the value at the front of a text ends: behind the bracket that closes it, strings being passed over; of one without
// brackets, in front of what cannot belong to it. What lies between is the parser's to judge. Nothing: not in this text.
std::optional<std::size_t> end_of_value(std::string_view text) {
  std::size_t depth = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\';
        break;
      case '{':
      case '[': ++depth; break;
      case '}':
      case ']':
        if (depth == 0) return std::max<std::size_t>(at, 1);
        if (--depth == 0) return at + 1;
        break;
      case ',':
      case '\n':
        if (depth == 0) return std::max<std::size_t>(at, 1);
        break;
      default: break;
    }
  }
  return std::nullopt;
}

}  // namespace

bool JsonBatch::next_piece(Piece& piece) {
  if (next_ < objects_.size()) {
    piece = std::move(objects_[next_++]);
    return true;
  }
  while (!lines_.text.empty()) {
    const std::size_t end = lines_.text.find('\n');
    std::string_view line = lines_.text.substr(0, end);
    lines_.text.remove_prefix(end == std::string_view::npos ? lines_.text.size() : end + 1);
    const std::int64_t number = lines_.origin.line++;
    if (is_blank(line)) continue;
    const std::size_t begin = line.find_first_not_of(" \t\r");
    line.remove_prefix(begin);
    piece = {lines_.memory, line, {number, static_cast<std::int64_t>(begin) + 1}};
    return true;
  }
  return false;
}

bool JsonBatch::next(Json& object, std::string& where) {
  Piece piece;
  if (!next_piece(piece)) return false;
  where = fmt::format("{}:{}:{}", file, piece.origin.line, piece.origin.column);
  if (piece.text.size() > longest_object)
    throw std::runtime_error(
        fmt::format("{}: an object of more than {} MiB, which is the most that is read", where, longest_object >> 20));
  object = parse_json(piece.text, file, {.allow_non_finite = true}, piece.origin);
  return true;
}

std::unique_ptr<JsonInput> open_json(const CorpusFile& file) {
  if (file.format == CorpusFormat::jsonl) return std::make_unique<JsonlFile>(file);
  if (file.format == CorpusFormat::json) return std::make_unique<JsonFile>(file);
  throw std::logic_error("no file of JSON");
}

// The rest of a line that was too long, which is never held as a whole. False where the file ends with it.
bool JsonlFile::finish_line() {
  for (;;) {
    const std::size_t end = window_.text().find('\n');
    if (end != std::string_view::npos) {
      window_.take(end + 1);
      return true;
    }
    window_.take(window_.text().size());
    if (!window_.grow()) return false;
  }
}

// How much of the window is given next. A mapped window gives at least as much as is asked for, so that a batch is worth
// its while; one that fills as it is read gives the whole lines that are there.
std::size_t JsonlFile::bytes_of_lines(std::size_t bytes) {
  for (;;) {
    const std::string_view text = window_.text();
    if (text.size() >= bytes || window_.whole()) {
      std::size_t end = text.size() >= bytes ? text.find('\n', std::max<std::size_t>(bytes, 1) - 1) : text.npos;
      if (end == text.npos && !window_.whole()) end = text.rfind('\n');
      if (end != text.npos) return end + 1;
      if (window_.whole()) return text.size();
      within_line_ = text.size() > longest_object;
      if (within_line_) return text.size();
    }
    window_.grow();
  }
}

bool JsonlFile::next(std::size_t bytes, JsonBatch& batch) {
  if (within_line_) finish_line();
  within_line_ = false;
  const std::size_t end = bytes_of_lines(bytes);
  batch = {};
  batch.file = window_.name();
  batch.lines_ = {window_.memory(), window_.text().substr(0, end), {line_, 1}};
  line_ += std::count(batch.lines_.text.begin(), batch.lines_.text.end(), '\n') + within_line_;
  window_.take(end);
  batch.bytes = window_.take_file_bytes();
  return end > 0 || batch.bytes > 0;
}

JsonFile::JsonFile(const CorpusFile& file) : window_(file) {
  in_array_ = skip_blanks() && window_.text()[0] == '[';
  if (in_array_) advance(1);
}

void JsonFile::refuse(const std::string& what) const {
  throw std::runtime_error(fmt::format("{}:{}:{}: {}", window_.name(), place_.line, place_.column, what));
}

void JsonFile::advance(std::size_t bytes) {
  const std::string_view passed = window_.text().substr(0, bytes);
  place_.line += std::count(passed.begin(), passed.end(), '\n');
  const std::size_t newline = passed.rfind('\n');
  place_.column = newline == passed.npos ? place_.column + static_cast<std::int64_t>(bytes)
                                         : static_cast<std::int64_t>(bytes - newline);
  window_.take(bytes);
}

// False at the end of the file.
bool JsonFile::skip_blanks() {
  for (;;) {
    const std::size_t next = window_.text().find_first_not_of(json_blanks);
    advance(std::min(next, window_.text().size()));
    if (next != std::string_view::npos) return true;
    if (!window_.grow()) return false;
  }
}

// Of the value that the window begins with.
std::size_t JsonFile::value_bytes() {
  for (;;) {
    const std::string_view text = window_.text();
    if (const auto end = end_of_value(text)) return *end;
    if (window_.whole()) {
      if (text[0] == '{' || text[0] == '[')
        refuse(fmt::format("what begins with {} is never closed: is the file cut short?",
                           quote_for_message(text.substr(0, 1))));
      return text.size();
    }
    if (text.size() > longest_object)
      refuse(fmt::format("what begins with {} has more than {} MiB, which is the most that is read of an object",
                         quote_for_message(text.substr(0, 1)), longest_object >> 20));
    window_.grow();
  }
}

bool JsonFile::next_object(JsonBatch::Piece& object) {
  const bool more = skip_blanks();
  if (in_array_ && !more) refuse("the array is never closed: is the file cut short?");
  if (!more) return false;
  const auto front = [&] { return window_.text().substr(0, 1); };
  if (ended_) refuse(fmt::format("{} follows the array's ']'", quote_for_message(front())));
  if (in_array_) {
    if (front() == "]") {
      advance(1);
      in_array_ = false;
      ended_ = true;
      return skip_blanks() && next_object(object);  // which refuses it
    }
    if (!first_) {
      if (front() != ",")
        refuse(fmt::format("found {}, expected ',' or ']' after an object of the array", quote_for_message(front())));
      advance(1);
      if (skip_blanks() && front() == "]")
        refuse("found \"]\" after a comma, expected an object: JSON has no comma behind the last one");
    }
  }
  first_ = false;
  const std::size_t bytes = window_.text().empty() ? 0 : value_bytes();
  object = {window_.memory(), window_.text().substr(0, bytes), place_};
  advance(bytes);
  return true;
}

bool JsonFile::next(std::size_t bytes, JsonBatch& batch) {
  batch = {};
  batch.file = window_.name();
  const std::uint64_t before = window_.taken();
  JsonBatch::Piece object;
  while ((batch.objects_.empty() || window_.taken() - before < bytes) && next_object(object))
    batch.objects_.push_back(object);
  // The end belongs to the last objects.
  if (skip_blanks() && in_array_ && window_.text()[0] == ']') next_object(object);
  batch.bytes = window_.take_file_bytes();
  return !batch.objects_.empty() || batch.bytes > 0;
}

}  // namespace smoe
