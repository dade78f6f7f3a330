// The text of a file, some of it in memory: all of it where it is mapped; of a pipe, and of what is compressed, what has been
// read and not been taken yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "data/import/corpus_files.h"
#include "data/files/files.h"
#include "data/files/read_ahead.h"

namespace smoe {

class TextWindow {
 public:
  // A UTF-8 byte order mark at the beginning is taken, and is no part of the text.
  explicit TextWindow(const CorpusFile& file);

  const std::string& name() const { return name_; }  // for messages

  // What has not been taken, as far as it is in memory. Views stay valid as long as memory() of the time is held.
  std::string_view text() const { return text_; }
  std::shared_ptr<const void> memory() const { return memory_; }
  // Up to 4 bytes that were taken last, which lie in front of text().
  std::string_view behind() const { return {text_.data() - behind_, behind_}; }
  bool whole() const { return whole_; }  // text() goes to the end of the file
  // Makes text() longer, about twice as long as it is where it is long already; false where it is whole.
  bool grow();

  void take(std::size_t bytes);
  std::uint64_t taken() const { return taken_; }  // of the text, with the mark
  // What was taken stands for so many bytes of the file since this was last asked; of one that is compressed, about.
  std::uint64_t take_file_bytes();

 private:
  std::string name_;
  std::shared_ptr<const void> memory_;
  std::string_view text_;
  std::size_t behind_ = 0;
  bool whole_ = false;
  std::uint64_t taken_ = 0, told_ = 0;
  std::unique_ptr<ReadAhead> ahead_;  // null where the file is mapped
  std::uint64_t file_bytes_ = 0;      // of the stream, read so far
};

}  // namespace smoe
