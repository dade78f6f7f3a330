// Documents as JSON: JSON Lines (https://jsonlines.org), one object a line, its text under one key; and files of one
// array of such objects, or of objects one after another, however they are broken into lines.
//
// NaN, Infinity and -Infinity, which Python's json writes, are taken wherever the text itself does not stand. A byte order
// mark at the beginning of a file is dropped. An object has at most 64 MiB (JsonLimits); lines have no limit of their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/files.h"
#include "data/files/json.h"

namespace smoe {

// Some whole lines of a file, with their file kept open. Blank lines are allowed and hold no document.
struct JsonlLines {
  std::shared_ptr<const MappedFile> file;
  std::string path;
  std::string_view text;
  std::int64_t first_line = 1;  // counted from 1
  std::uint64_t bytes = 0;      // of the file that they stand for

  // Takes the next document off the front; false where there is none left.
  // Throws std::runtime_error with file, line and column unless the line is an object with a string under `text_field`.
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
  std::uint64_t mark_bytes_;  // of the byte order mark, until the first lines have taken them
};

// Some objects of a file, with their file kept open.
struct JsonObjects {
  struct Object {
    std::string_view text;
    JsonOrigin origin;
  };

  std::shared_ptr<const MappedFile> file;
  std::string path;
  std::vector<Object> objects;
  std::uint64_t bytes = 0;  // of the file that they stand for
  std::size_t next = 0;

  // As JsonlLines::next_document.
  bool next_document(const std::string& text_field, std::string& document);
};

// Cuts a file into its objects without parsing them, so that it is never held in memory as a whole.
class JsonFile {
 public:
  explicit JsonFile(const std::filesystem::path& path);

  // The next objects, of at least `bytes` bytes while the file has so many; false at its end.
  // Throws std::runtime_error with file, line and column where an array or an object does not end.
  bool next_objects(std::size_t bytes, JsonObjects& objects);

 private:
  [[noreturn]] void refuse(const std::string& what) const;
  void skip_blanks();
  void advance(std::size_t bytes);
  bool next_object(JsonObjects::Object& object);
  std::size_t value_bytes() const;

  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  std::string_view text_;
  std::size_t at_ = 0, taken_ = 0;  // taken_: what earlier objects stand for
  JsonOrigin place_;                // of text_[at_]
  bool in_array_ = false, first_ = true, ended_ = false;
  std::uint64_t mark_bytes_;
};

// The bytes of a mapped file as text, and the same less a UTF-8 byte order mark at the front.
std::string_view text_of(const MappedFile& file);
std::string_view without_byte_order_mark(std::string_view text);

}  // namespace smoe
