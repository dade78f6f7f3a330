#include "data/import_jsonl.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/json.h"

namespace smoe {

namespace {

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

bool JsonlLines::next_document(const std::string& text_field, std::string& document) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::int64_t number = first_line++;
    if (is_blank(line)) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    const Json object = parse_json(line, where);
    document = JsonReader(object, where).require_string(text_field);
    return true;
  }
  return false;
}

JsonlFile::JsonlFile(const std::filesystem::path& path)
    : path_(path.string()), file_(std::make_shared<MappedFile>(path)), rest_(text_of(*file_)) {}

bool JsonlFile::next_lines(std::size_t bytes, JsonlLines& lines) {
  if (rest_.empty()) return false;
  const std::size_t newline = bytes <= rest_.size() ? rest_.find('\n', std::max<std::size_t>(bytes, 1) - 1) : rest_.npos;
  const std::size_t end = newline == rest_.npos ? rest_.size() : newline + 1;
  lines = {file_, path_, rest_.substr(0, end), line_};
  line_ += std::count(lines.text.begin(), lines.text.end(), '\n');
  rest_.remove_prefix(end);
  return true;
}

}  // namespace smoe
