#include "data/files/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "data/files/live_temporaries.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& action, const std::string& path, int error) {
  throw std::runtime_error(fmt::format("cannot {} {}: {}", action, path, std::strerror(error)));
}

// A write that failed for want of room says how much was wanted and what is left.
[[noreturn]] void refuse_write(const std::string& path, int error, std::uint64_t bytes, std::uint64_t offset) {
  std::string message =
      fmt::format("cannot write {} bytes at offset {} of {}: {}", bytes, offset, path, std::strerror(error));
  struct statvfs disk {};
  if (error == ENOSPC && ::statvfs(path.c_str(), &disk) == 0)
    message += fmt::format(" ({} bytes are free; make room or choose another directory)",
                           static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize);
  else if (error == EDQUOT)
    message += " (the quota is used up; make room or choose another directory)";
  else if (error == EFBIG)
    message += " (over the largest file allowed here; see ulimit -f)";
  throw std::runtime_error(message);
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

constexpr std::size_t random_hex_length = 16;

std::string random_hex() {
  std::uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) refuse("draw", "a random name", errno);
  return fmt::format("{:0{}x}", bits, random_hex_length);
}

// Cut, so that a name near the longest allowed (255) stays allowed.
std::string temporary_prefix(const std::string& name) { return fmt::format(".{}.tmp-", name.substr(0, 200)); }

}  // namespace

File File::open_regular(const fs::path& path, int flags, const char* action) {
  // O_NONBLOCK: opening a FIFO to read would otherwise wait for its writer. It means nothing to a regular file.
  const int fd = open_retrying(path, flags | O_NONBLOCK);
  if (fd < 0) refuse(action, path.string(), errno);
  File file(fd, path.string());
  struct stat status {};
  if (::fstat(fd, &status) != 0) refuse(action, path.string(), errno);
  if (!S_ISREG(status.st_mode))
    throw std::runtime_error(
        fmt::format("cannot {} {}: it is {}, expected a regular file", action, path.string(), kind_of(status.st_mode)));
  return file;
}

File File::open_to_read(const fs::path& path) { return open_regular(path, O_RDONLY, "read"); }

File File::open_to_update(const fs::path& path) { return open_regular(path, O_RDWR | O_NOFOLLOW, "update"); }

File File::create(const fs::path& path) {
  const int fd = open_retrying(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
  if (fd < 0) refuse("create", path.string(), errno);
  return File(fd, path.string());
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

File::File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

std::uint64_t File::size() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) refuse("read the size of", path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

void File::pread_all(void* out, std::size_t bytes, std::uint64_t offset) const {
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd_, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse("read", path_, errno);
    if (n == 0)
      throw std::runtime_error(
          fmt::format("cannot read {}: it ends at byte {}, {} more were expected", path_, offset, bytes));
    to += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
}

void File::pwrite_all(const void* data, std::size_t bytes, std::uint64_t offset) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refuse_write(path_, n < 0 ? errno : ENOSPC, bytes, offset);
    from += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
}

void File::reserve(std::uint64_t bytes) {
  if (bytes == 0) return;
  int result;
  do result = ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes));
  while (result != 0 && errno == EINTR);
  if (result == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS) refuse_write(path_, errno, bytes, 0);
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) refuse_write(path_, errno, bytes, 0);
}

void File::sync() {
  if (::fsync(fd_) != 0) refuse("make durable (fsync)", path_, errno);
}

void File::close() {
  // Linux frees the descriptor whatever close() answers, so it is never tried twice.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) refuse("close", path_, errno);
}

MappedFile::MappedFile(const File& file) : size_(file.size()) {
  if (size_ == 0) return;  // mmap refuses an empty range
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (mapped == MAP_FAILED) refuse("map", file.path(), errno);
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

TemporaryPath::TemporaryPath(fs::path target) : target_(std::move(target)) {
  const std::string name = target_.filename().string();
  if (name.empty() || name == "." || name == "..")
    throw std::runtime_error(fmt::format("cannot write {}: it names no file", target_.string()));
  // A file would be put into the place of /dev/null, and of what /dev/stdout is a link to.
  struct stat status {};
  if (::stat(target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
    throw std::runtime_error(fmt::format("cannot write {}: it is {}, expected a regular file or nothing there",
                                         target_.string(), kind_of(status.st_mode)));
  path_ = parent_of(target_) / (temporary_prefix(name) + random_hex());
  add_live_temporary(this, path_);
}

TemporaryPath::~TemporaryPath() {
  if (!committed_) ::unlink(path_.c_str());
  drop_live_temporary(this);
}

void TemporaryPath::commit() {
  rename_durably(path_, target_);
  committed_ = true;
}

void remove_temporaries(const fs::path& target) {
  const std::string prefix = temporary_prefix(target.filename().string());
  std::error_code error;
  std::vector<fs::path> stale;
  for (fs::directory_iterator it(parent_of(target), error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) && name.size() == prefix.size() + random_hex_length &&
        name.find_first_not_of("0123456789abcdef", prefix.size()) == std::string::npos)
      stale.push_back(it->path());
  }
  for (const auto& path : stale) fs::remove(path, error);
}

AtomicFile::AtomicFile(const fs::path& path) : temporary_(path), file_(File::create(temporary_.path())) {}

void AtomicFile::write(std::string_view bytes) {
  file_.pwrite_all(bytes.data(), bytes.size(), written_);
  written_ += bytes.size();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::commit() {
  file_.sync();
  file_.close();
  temporary_.commit();
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void copy_file_atomically(const fs::path& from, const fs::path& to) {
  const MappedFile source(from);
  AtomicFile file(to);
  file.write(source.bytes());
  file.commit();
}

std::string read_file(const fs::path& path, std::uint64_t max_bytes) {
  const File file = File::open_to_read(path);
  const std::uint64_t size = file.size();
  if (size > max_bytes)
    throw std::runtime_error(
        fmt::format("{} holds {} bytes, expected at most {} for a file of this kind", path.string(), size, max_bytes));
  std::string content(size, '\0');
  file.pread_all(content.data(), content.size(), 0);
  return content;
}

void fsync_directory(const fs::path& directory) {
  const int fd = open_retrying(directory, O_RDONLY | O_DIRECTORY);
  if (fd < 0) refuse("open the directory", directory.string(), errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // EINVAL: a file system that cannot sync directories, as some network ones; there is nothing better to do.
  if (result != 0 && error != EINVAL) refuse("make durable (fsync)", directory.string(), error);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) refuse(fmt::format("rename {} to", from.string()), to.string(), errno);
  fsync_directory(parent_of(to));
}

void make_directories(const fs::path& directory) {
  fs::path made;
  for (const fs::path& part : directory) {
    made /= part;
    if (part.empty()) continue;  // a trailing slash
    if (::mkdir(made.c_str(), 0755) == 0) {
      fsync_directory(parent_of(made));
      continue;
    }
    const int error = errno;
    struct stat status {};
    // What exists already may answer mkdir with another error than EEXIST (on a read-only file system, for one).
    if (::stat(made.c_str(), &status) != 0) refuse("create the directory", made.string(), error);
    if (!S_ISDIR(status.st_mode))
      throw std::runtime_error(fmt::format("cannot create the directory {}: {} exists and is not a directory",
                                           directory.string(), made.string()));
  }
}

}  // namespace smoe
