#include "trainer/checkpoint/directory_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "data/files/files.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr const char* lock_name = ".lock";

// is_locked() holds it for an instant, so nobody gives up at once.
bool take(int file, double patience) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience);
  while (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace

std::string read_run_lock(const fs::path& directory) {
  return fs::exists(directory / lock_name) ? read_file(directory / lock_name, 4096) : "none";
}

bool is_locked(const fs::path& directory) {
  const int file = ::open((directory / lock_name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return false;
  const bool free = ::flock(file, LOCK_SH | LOCK_NB) == 0;
  ::close(file);
  return !free;
}

DirectoryLock::DirectoryLock(const fs::path& directory, const std::string& what, const std::string& key,
                             double patience) {
  std::string who;
  if (!lock(directory, key, lock_name, patience, who))
    throw std::runtime_error(fmt::format("{}: another {} is writing here ({}); wait for it, or choose another {}",
                                         directory.string(), what, who.empty() ? "unknown process" : who, key));
}

std::unique_ptr<DirectoryLock> DirectoryLock::try_lock(const fs::path& directory, const std::string& key,
                                                       const std::string& name) {
  std::unique_ptr<DirectoryLock> taken(new DirectoryLock);
  std::string who;
  return taken->lock(directory, key, name, 0, who) ? std::move(taken) : nullptr;
}

bool DirectoryLock::lock(const fs::path& directory, const std::string& key, const std::string& name, double patience,
                         std::string& who) {
  make_directories(directory);
  const fs::path lock = directory / name;
  file_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (file_ < 0)
    throw std::runtime_error(
        fmt::format("{}: cannot be written ({}); choose another {}", directory.string(), std::strerror(errno), key));
  if (!take(file_, patience)) {
    std::array<char, 256> holder{};
    const auto length = ::pread(file_, holder.data(), holder.size() - 1, 0);
    who.assign(holder.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    ::close(std::exchange(file_, -1));
    return false;
  }
  std::array<char, 128> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string holder = fmt::format("process {} on {}", ::getpid(), host.data());
  // Synced, so that ranks on other nodes read it.
  if (::ftruncate(file_, 0) != 0 || ::pwrite(file_, holder.data(), holder.size(), 0) < 0 || ::fsync(file_) != 0) {
    const int error = errno;
    ::close(std::exchange(file_, -1));
    throw std::runtime_error(fmt::format("{}: cannot be written ({})", lock.string(), std::strerror(error)));
  }
  return true;
}

DirectoryLock::~DirectoryLock() {
  if (file_ >= 0) ::close(file_);  // releases the lock; the file stays, because removing it would race with a waiter
}

}  // namespace smoe
