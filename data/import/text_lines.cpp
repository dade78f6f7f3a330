#include "data/import/text_lines.h"

#include <algorithm>

#include "data/files/utf8.h"

namespace smoe {

bool TextLines::next_document() {
  for (;;) {
    if (jsonl_lines_.next_document(text_field_, json_document_) ||
        json_objects_.next_document(text_field_, json_document_)) {
      rest_ = json_document_;
      return true;
    }
    if (jsonl_file_ && jsonl_file_->next_lines(1 << 20, jsonl_lines_)) continue;
    if (json_file_ && json_file_->next_objects(1 << 20, json_objects_)) continue;
    jsonl_file_.reset();
    json_file_.reset();
    if (next_file_ == files_->size()) return false;
    const CorpusFile& file = (*files_)[next_file_++];
    if (file.format == CorpusFormat::jsonl) {
      jsonl_file_.emplace(file.path);
      continue;
    }
    if (file.format == CorpusFormat::json) {
      json_file_.emplace(file.path);
      continue;
    }
    text_file_ = std::make_shared<MappedFile>(file.path);
    rest_ = without_byte_order_mark(text_of(*text_file_));
    return true;
  }
}

std::optional<std::string_view> TextLines::next() {
  constexpr std::string_view line_ends("\n\0", 2);
  for (;;) {
    while (rest_.empty())
      if (!next_document()) return std::nullopt;
    std::size_t end = std::min(rest_.substr(0, longest_line + 1).find_first_of(line_ends), rest_.size());
    const bool cut = end > longest_line;
    if (cut)
      for (end = longest_line; end > longest_line - 4 && is_utf8_trail(rest_[end]);) --end;
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + (!cut && end < rest_.size()));
    if (line.empty()) continue;
    if (is_valid_utf8(line)) return line;
    ++invalid_lines_;
  }
}

}  // namespace smoe
