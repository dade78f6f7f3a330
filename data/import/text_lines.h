// The lines of a corpus of texts, one at a time: what a vocabulary is learned from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/import/bad_documents.h"
#include "data/import/corpus_files.h"
#include "data/import/import_jsonl.h"
#include "data/import/parquet.h"
#include "data/import/text_field.h"
#include "data/import/text_window.h"

namespace smoe {

// Lines end at a newline or a zero byte. A line above `longest_line` bytes comes in several, cut between characters.
// Empty lines are left out, and so are lines that are not UTF-8, which are counted.
class TextLines {
 public:
  static constexpr std::size_t longest_line = 4096;

  // The files, and `bad` where it is given, must outlive the lines. Without it, a bad document is an error.
  TextLines(const std::vector<CorpusFile>& files, const std::string& text_field, BadDocuments* bad = nullptr)
      : files_(&files), text_field_(text_field), field_(text_field), bad_(bad) {}

  // A view that is valid until the next call; nothing at the end. Throws std::runtime_error for a bad file.
  std::optional<std::string_view> next();
  std::int64_t invalid_lines() const { return invalid_lines_; }
  // Of the files, unpacked, that were taken so far; all of them at the end.
  std::uint64_t bytes() const;

 private:
  bool next_document();
  bool next_object();
  bool next_row();
  bool fill();
  void open(const CorpusFile& file);

  const std::vector<CorpusFile>* files_;
  std::string text_field_;
  TextField field_;
  BadDocuments* bad_;
  BadDocuments none_{0};
  std::size_t next_file_ = 0;
  std::unique_ptr<TextWindow> text_;  // of the open file, whichever it is
  std::unique_ptr<JsonInput> json_;
  JsonBatch objects_;
  std::unique_ptr<ParquetInput> table_;
  ParquetRows rows_;
  std::size_t next_row_ = 0;
  std::string document_;
  std::string_view rest_;  // of the document, or of what the window of a text has of it
  std::uint64_t bytes_before_ = 0;
  std::int64_t invalid_lines_ = 0;
};

}  // namespace smoe
