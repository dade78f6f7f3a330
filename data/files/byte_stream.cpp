#include "data/files/byte_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace smoe {
namespace fs = std::filesystem;

namespace {

constexpr int poll_milliseconds = 100;  // how soon a cancelled read of a silent pipe ends

[[noreturn]] void refuse_stream(const std::string& name, int error) {
  throw std::runtime_error(fmt::format("cannot read {}: {}", name, std::strerror(error)));
}

class DescriptorStream final : public ByteStream {
 public:
  DescriptorStream(int fd, bool owned, std::string name) : fd_(fd), owned_(owned), name_(std::move(name)) {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) refuse_stream(name_, errno);
    may_wait_ = !S_ISREG(status.st_mode);
    // A terminal is a device too, and may be what standard input is.
    const bool readable = S_ISREG(status.st_mode) || S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode) ||
                          (S_ISCHR(status.st_mode) && !owned_);
    if (!readable)
      throw std::runtime_error(fmt::format("cannot read {}: it is {}, expected a file or a pipe", name_,
                                           S_ISDIR(status.st_mode) ? "a directory" : "a device"));
  }
  ~DescriptorStream() override {
    if (owned_) ::close(fd_);
  }
  DescriptorStream(const DescriptorStream&) = delete;
  DescriptorStream& operator=(const DescriptorStream&) = delete;

  std::size_t read(char* out, std::size_t bytes) override {
    for (;;) {
      if (may_wait_) wait();
      const ssize_t n = ::read(fd_, out, bytes);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n < 0) refuse_stream(name_, errno);
      read_ += static_cast<std::uint64_t>(n);
      return static_cast<std::size_t>(n);
    }
  }

  std::uint64_t file_bytes() const override { return read_; }
  void cancel() override { cancelled_ = true; }

 private:
  void wait() const {
    for (;;) {
      if (cancelled_) throw std::runtime_error(fmt::format("reading {} was given up", name_));
      struct pollfd ready {
        fd_, POLLIN, 0
      };
      const int count = ::poll(&ready, 1, poll_milliseconds);
      if (count > 0) return;
      if (count < 0 && errno != EINTR) refuse_stream(name_, errno);
    }
  }

  int fd_;
  bool owned_, may_wait_ = false;
  std::string name_;
  std::uint64_t read_ = 0;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace

std::string display_name(const fs::path& path) {
  return path == fs::path(standard_input) ? std::string("standard input") : path.string();
}

std::unique_ptr<ByteStream> open_byte_stream(const fs::path& path) {
  const std::string name = display_name(path);
  if (path == fs::path(standard_input)) return std::make_unique<DescriptorStream>(STDIN_FILENO, false, name);
  int fd;
  do fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) refuse_stream(name, errno);
  try {
    return std::make_unique<DescriptorStream>(fd, true, name);
  } catch (...) {
    ::close(fd);
    throw;
  }
}

PeekedStream::PeekedStream(std::unique_ptr<ByteStream> stream, std::string name, std::size_t bytes)
    : stream_(std::move(stream)) {
  const auto fill = [&](std::size_t most) {
    while (head_.size() < most) {
      const std::size_t had = head_.size();
      head_.resize(most);
      const std::size_t more = stream_->read(head_.data() + had, most - had);
      head_.resize(had + more);
      if (more == 0) return true;
    }
    return false;
  };
  head_is_all_ = fill(std::min<std::size_t>(bytes, 6));
  compression_ = compression_of(head_);
  if (compression_ != Compression::none) {
    // The magic bytes are read once more, by the decoder.
    auto packed = std::unique_ptr<PeekedStream>(new PeekedStream(std::move(stream_), std::move(head_)));
    stream_ = decompress(std::move(packed), compression_, std::move(name));
    head_.clear();
    head_is_all_ = false;
  }
  if (!head_is_all_) head_is_all_ = fill(bytes);
}

std::size_t PeekedStream::read(char* out, std::size_t bytes) {
  if (next_ == head_.size()) return head_is_all_ ? 0 : stream_->read(out, bytes);
  const std::size_t given = std::min(bytes, head_.size() - next_);
  std::memcpy(out, head_.data() + next_, given);
  next_ += given;
  return given;
}

}  // namespace smoe
