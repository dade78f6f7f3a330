// JSON Lines: one object a line, its text under one key. https://jsonlines.org
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "data/files.h"

namespace smoe {

// Some whole lines of a file, with their file kept open. Blank lines are allowed and hold no document.
struct JsonlLines {
  std::shared_ptr<const MappedFile> file;
  std::string path;
  std::string_view text;
  std::int64_t first_line = 1;  // counted from 1

  // Takes the next document off the front; false where there is none left.
  // Throws std::runtime_error with file and line unless the line is an object with a string under `text_field`.
  bool next_document(const std::string& text_field, std::string& document);
};

class JsonlFile {
 public:
  explicit JsonlFile(const std::filesystem::path& path);

  // The next whole lines, of at least `bytes` bytes while the file has so many; false at its end.
  bool next_lines(std::size_t bytes, JsonlLines& lines);

 private:
  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  std::string_view rest_;
  std::int64_t line_ = 1;
};

// The bytes of a mapped file as text.
std::string_view text_of(const MappedFile& file);

}  // namespace smoe
