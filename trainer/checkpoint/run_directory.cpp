#include "trainer/checkpoint/run_directory.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/printable.h"
#include "trainer/checkpoint/checkpoint.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {
constexpr const char* lock_name = ".lock";
}

std::string read_run_lock(const fs::path& run_directory) {
  return fs::exists(run_directory / lock_name) ? read_file(run_directory / lock_name, 4096) : "none";
}

RunDirectory::RunDirectory(const fs::path& path) : path_(path) {
  make_directories(path_);
  const fs::path lock = path_ / lock_name;
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (lock_ < 0)
    throw std::runtime_error(fmt::format("{}: cannot be written ({}); choose another train.output_dir", path_.string(),
                                         std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    std::array<char, 256> holder{};
    const auto length = ::pread(lock_, holder.data(), holder.size() - 1, 0);
    const std::string who(holder.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    ::close(lock_);
    throw std::runtime_error(
        fmt::format("{}: another run is writing here ({}); wait for it, or choose another train.output_dir",
                    path_.string(), who.empty() ? "unknown process" : who));
  }
  std::array<char, 128> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string holder = fmt::format("process {} on {}", ::getpid(), host.data());
  // Synced, so that ranks on other nodes read it.
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, holder.data(), holder.size(), 0) < 0 || ::fsync(lock_) != 0)
    throw std::runtime_error(fmt::format("{}: cannot be written ({})", lock.string(), std::strerror(errno)));
  for (const char* file : {"config.resolved.yaml", "metrics.jsonl"})
    remove_temporaries(path_ / file);  // of killed runs
  log_.emplace(path_ / "train.log");
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);  // releases the lock; the file stays, because removing it would race with a waiter
}

fs::path RunDirectory::make_place_for_earlier_results() {
  for (int n = 1;; ++n)
    if (const fs::path candidate = path_ / fmt::format("previous-{}", n); !fs::exists(candidate)) {
      make_directories(candidate);
      return candidate;
    }
}

std::optional<fs::path> RunDirectory::set_aside_earlier_results() {
  constexpr std::array results = {"checkpoints", "metrics.jsonl", "tensorboard", "dumps", "report.html"};
  std::optional<fs::path> aside;
  for (const char* name : results) {
    if (!fs::exists(path_ / name)) continue;
    if (!aside) aside = make_place_for_earlier_results();
    rename_durably(path_ / name, *aside / name);
  }
  return aside;
}

std::optional<fs::path> RunDirectory::set_aside_results_after(std::int64_t step) {
  const RunPaths paths{path_};
  const auto later = checkpoints_after(paths.checkpoints(), step);
  if (later.empty()) return std::nullopt;
  const fs::path aside = make_place_for_earlier_results();
  make_directories(aside / "checkpoints");
  if (fs::exists(paths.metrics())) copy_file_atomically(paths.metrics(), aside / paths.metrics().filename());
  for (const fs::path& checkpoint : later) rename_durably(checkpoint, aside / "checkpoints" / checkpoint.filename());
  return aside;
}

void RunDirectory::write_config(const std::string& yaml) {
  write_file_atomically(path_ / "config.resolved.yaml", yaml);
}

void RunDirectory::log(const std::string& line) {
  log_->append(fmt::format("{:%Y-%m-%d %H:%M:%S} {}\n", fmt::localtime(std::time(nullptr)), printable(line)));
}

}  // namespace smoe
