#include "trainer/convert/new_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

#include "data/files/directory_place.h"
#include "data/files/files.h"
#include "data/files/printable.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// Without a trailing slash and, so that a rename replaces what it names, without being a link.
fs::path named_directory(const fs::path& given) {
  const fs::path path = given.has_filename() ? given : given.parent_path();
  if (path.empty() || path.filename() == "." || path.filename() == "..")
    throw std::runtime_error(fmt::format("'{}' names no new directory: give --out a name of its own", given.string()));
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  if (!fs::exists(path, error))
    throw std::runtime_error(fmt::format("{} is a link to nothing: name another directory with --out", path.string()));
  return fs::canonical(path);
}

void require_outside(const fs::path& target, const fs::path& source) {
  const DirectoryPlace place = place_of(target, source);
  if (place == DirectoryPlace::outside) return;
  throw std::runtime_error(fmt::format(
      "{} {}: a conversion leaves its source as it is; name another directory with --out", target.string(),
      place == DirectoryPlace::itself ? "is what is read" : fmt::format("lies in {}, which is read", source.string())));
}

// Whether the name still leads to the open directory: a conversion that ended meanwhile has renamed or removed it.
bool still_named(int directory, const fs::path& path) {
  struct stat open {
  }, named{};
  return ::fstat(directory, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

NewDirectory::NewDirectory(const fs::path& target, const std::vector<fs::path>& sources)
    : target_(named_directory(target)) {
  for (const fs::path& source : sources) require_outside(target_, source);
  require_free();
  hidden_ = target_.parent_path() / ("." + target_.filename().string() + ".unfinished");
  lock_hidden();
  try {
    require_free();  // whoever held the lock may have finished
    for (const fs::directory_entry& left : fs::directory_iterator(hidden_)) fs::remove_all(left.path());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(hidden_, ignored);
    ::close(lock_);
    throw;
  }
}

NewDirectory::~NewDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(hidden_, ignored);
  ::close(lock_);  // only now: nobody else may take what is being removed for theirs
}

void NewDirectory::require_free() const {
  if (!fs::exists(fs::symlink_status(target_))) return;
  if (!fs::is_directory(target_))
    throw std::runtime_error(
        fmt::format("{} exists and is not a directory: name a new one with --out", target_.string()));
  for (const fs::directory_entry& entry : fs::directory_iterator(target_))
    throw std::runtime_error(
        fmt::format("{} holds {}, expected a directory that is new or empty: name another with --out", target_.string(),
                    printable(entry.path().filename().string())));
}

void NewDirectory::lock_hidden() {
  do {
    if (lock_ >= 0) ::close(lock_);
    make_directories(hidden_);
    lock_ = ::open(hidden_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (lock_ < 0)
      throw std::runtime_error(
          fmt::format("cannot open {}: {}", hidden_.string(), std::generic_category().message(errno)));
    // Some network file systems lock no directories; there two conversions to one place are their user's to avoid.
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(lock_);
      throw std::runtime_error(
          fmt::format("{}: another process is writing it (in {}): wait for it, or name another with --out",
                      target_.string(), hidden_.string()));
    }
  } while (!still_named(lock_, hidden_));
}

void NewDirectory::commit() {
  fsync_directory(hidden_);
  rename_durably(hidden_, target_);
  committed_ = true;
}

}  // namespace smoe
