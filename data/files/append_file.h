// A file that only grows: a piece is appended whole, by one write, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "data/files/files.h"

namespace smoe {

// Errors: std::runtime_error with the path and the system's reason, as data/files/files.h.
class AppendFile {
 public:
  // Opens the file to go on at its end; makes it if it is absent.
  explicit AppendFile(const std::filesystem::path& path);

  // After an exception (a full disk) the file ends where it ended before.
  void append(std::string_view piece);
  void sync() { file_.sync(); }  // what was appended survives a power cut

  const std::string& path() const { return file_.path(); }

 private:
  File file_;
  std::uint64_t end_;
};

}  // namespace smoe
