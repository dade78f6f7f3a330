#include "data/import/text_lines.h"

#include <algorithm>

#include "data/files/utf8.h"

namespace smoe {

namespace {

constexpr std::size_t some_text = 1 << 20;

}  // namespace

std::uint64_t TextLines::bytes() const {
  if (text_) return bytes_before_ + text_->taken();
  return bytes_before_ + (json_ ? json_->text_bytes() : 0);
}

void TextLines::open(const CorpusFile& file) {
  if (file.format == CorpusFormat::text)
    text_ = std::make_unique<TextWindow>(file);
  else if (file.format == CorpusFormat::parquet)
    table_ = open_parquet(file, text_field_);
  else
    json_ = open_json(file);
}

bool TextLines::next_object() {
  const auto read = [&](const Json& object, const std::string& where) { document_ = field_.of(object, where); };
  do {
    if (next_good(objects_, bad_ ? *bad_ : none_, read)) return true;
  } while (json_->next(some_text, objects_));
  return false;
}

bool TextLines::next_row() {
  for (;;) {
    while (next_row_ < rows_.texts.size()) {
      const std::size_t row = next_row_++;
      if (!rows_.faults[row]) {
        document_ = std::move(rows_.texts[row]);
        bytes_before_ += document_.size();
        return true;
      }
      (bad_ ? *bad_ : none_).add(fault_of_row(rows_, row));
    }
    next_row_ = 0;
    if (!table_->next(some_text, rows_)) return false;
  }
}

// The next document, or more of a text; false at the end of all.
bool TextLines::next_document() {
  for (;;) {
    if (text_ && fill()) return true;
    if ((json_ && next_object()) || (table_ && next_row())) {
      rest_ = document_;
      return true;
    }
    bytes_before_ = bytes();
    text_.reset();
    json_.reset();
    table_.reset();
    objects_ = {};
    rows_ = {};
    if (next_file_ == files_->size()) return false;
    open((*files_)[next_file_++]);
    if (text_) rest_ = text_->text();
  }
}

// Makes what is left of a text long enough for a line; false where nothing is left.
bool TextLines::fill() {
  text_->take(text_->text().size() - rest_.size());
  while (text_->text().size() <= longest_line && text_->grow()) {
  }
  rest_ = text_->text();
  return !rest_.empty();
}

std::optional<std::string_view> TextLines::next() {
  constexpr std::string_view line_ends("\n\0", 2);
  for (;;) {
    if (rest_.empty() || (text_ && rest_.size() <= longest_line && !text_->whole()))
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
