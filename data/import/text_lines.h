// The lines of a corpus of text, JSONL and JSON files, one at a time: what a vocabulary is learned from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/import/corpus_files.h"
#include "data/import/import_jsonl.h"

namespace smoe {

// Lines end at a newline or a zero byte. A line above `longest_line` bytes comes in several, cut between characters.
// Empty lines are left out, and so are lines that are not UTF-8, which are counted.
class TextLines {
 public:
  static constexpr std::size_t longest_line = 4096;

  TextLines(const std::vector<CorpusFile>& files, std::string text_field)
      : files_(&files), text_field_(std::move(text_field)) {}

  // A view that is valid until the next call; nothing at the end. Throws std::runtime_error for a bad file.
  std::optional<std::string_view> next();
  std::int64_t invalid_lines() const { return invalid_lines_; }

 private:
  bool next_document();

  const std::vector<CorpusFile>* files_;
  std::string text_field_;
  std::size_t next_file_ = 0;
  std::shared_ptr<const MappedFile> text_file_;
  std::optional<JsonlFile> jsonl_file_;
  JsonlLines jsonl_lines_;
  std::optional<JsonFile> json_file_;
  JsonObjects json_objects_;
  std::string json_document_;
  std::string_view rest_;  // of the document
  std::int64_t invalid_lines_ = 0;
};

}  // namespace smoe
