#include "data/files/append_file.h"

#include <unistd.h>

namespace smoe {

AppendFile::AppendFile(const std::filesystem::path& path)
    : file_(std::filesystem::exists(path) ? File::open_to_update(path) : File::create(path)), end_(file_.size()) {}

void AppendFile::append(std::string_view piece) {
  try {
    file_.pwrite_all(piece.data(), piece.size(), end_);
  } catch (...) {
    // Takes back the part that did fit; where even that fails, readers meet an unfinished last piece and drop it.
    [[maybe_unused]] const int result = ::ftruncate(file_.fd(), static_cast<off_t>(end_));
    throw;
  }
  end_ += piece.size();
}

}  // namespace smoe
