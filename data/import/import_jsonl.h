// Documents as JSON: JSON Lines (https://jsonlines.org), one object a line; and files of one array of objects, or of objects
// one after another, however they are broken into lines. What an object must hold is its user's to say (text_field.h).
//
// NaN, Infinity and -Infinity, which Python's json writes, are taken wherever the text itself does not stand. A byte order
// mark at the beginning of a file is dropped. An object has at most 64 MiB (JsonLimits); lines have no limit of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/import/corpus_files.h"
#include "data/import/text_window.h"

namespace smoe {

// Some objects of a file, not parsed yet, with the memory that they lie in: to be parsed on any thread.
class JsonBatch {
 public:
  // Takes the next object off the front; false where there is none left. Blank lines hold none.
  // where: "FILE:line:column", for messages. Throws std::runtime_error that begins with it where the text is no JSON; the
  // next call goes on behind that.
  bool next(Json& object, std::string& where);

  std::string file;
  std::uint64_t bytes = 0;  // of the file, that the batch stands for

 private:
  friend class JsonlFile;
  friend class JsonFile;
  struct Piece {
    std::shared_ptr<const void> memory;
    std::string_view text;
    JsonOrigin origin;
  };
  bool next_piece(Piece& piece);

  Piece lines_;  // of JSON Lines: those that are left
  std::vector<Piece> objects_;
  std::size_t next_ = 0;
};

class JsonInput {
 public:
  virtual ~JsonInput() = default;
  // The next objects, of about `bytes` bytes while the file has so many; false at its end.
  // Throws std::runtime_error with file, line and column where they cannot be told from one another.
  virtual bool next(std::size_t bytes, JsonBatch& batch) = 0;
  virtual std::uint64_t text_bytes() const = 0;  // unpacked, that were taken
};

// Of a file whose format is jsonl or json.
std::unique_ptr<JsonInput> open_json(const CorpusFile& file);

// By whole lines.
class JsonlFile final : public JsonInput {
 public:
  explicit JsonlFile(const CorpusFile& file) : window_(file) {}

  bool next(std::size_t bytes, JsonBatch& batch) override;
  std::uint64_t text_bytes() const override { return window_.taken(); }

 private:
  bool finish_line();
  std::size_t bytes_of_lines(std::size_t bytes);

  TextWindow window_;
  std::int64_t line_ = 1;
  bool within_line_ = false;  // of one that is too long, whose beginning has been given
};

// Cuts a file into its objects without parsing them, so that it is never held in memory as a whole.
class JsonFile final : public JsonInput {
 public:
  explicit JsonFile(const CorpusFile& file);

  bool next(std::size_t bytes, JsonBatch& batch) override;
  std::uint64_t text_bytes() const override { return window_.taken(); }

 private:
  [[noreturn]] void refuse(const std::string& what) const;
  bool skip_blanks();
  void advance(std::size_t bytes);
  bool next_object(JsonBatch::Piece& object);
  std::size_t value_bytes();

  TextWindow window_;
  JsonOrigin place_;  // of what the window begins with
  bool in_array_ = false, first_ = true, ended_ = false;
};

}  // namespace smoe
