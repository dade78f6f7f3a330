#include "data/shards/open_shards.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <stdexcept>

#include "data/files/sha256.h"

namespace smoe {
namespace {

std::size_t default_open_shards() {
  constexpr std::size_t usual = 64, least = 2;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return usual;
  return std::clamp<std::size_t>(static_cast<std::size_t>(limit.rlim_cur) / 8, least, usual);
}

}  // namespace

OpenShards::OpenShards(std::size_t most) : most_(most > 0 ? most : default_open_shards()) {}

std::shared_ptr<const OpenShard> OpenShards::get(const std::string& path, const FileIdentity& identity,
                                                 const std::function<std::shared_ptr<const OpenShard>()>& open) {
  const std::lock_guard lock(mutex_);
  if (const auto place = by_path_.find(path); place != by_path_.end()) {
    if (place->second->second->identity == identity) {
      uses_.splice(uses_.begin(), uses_, place->second);
      return uses_.front().second;
    }
    uses_.erase(place->second);
    by_path_.erase(place);
  }
  while (uses_.size() >= most_) {
    by_path_.erase(uses_.back().first);
    uses_.pop_back();
  }
  uses_.emplace_front(path, open());
  by_path_.emplace(path, uses_.begin());
  return uses_.front().second;
}

void OpenShards::verify(const std::string& path, const FileIdentity& identity, const std::string& sha256) {
  Verified file{identity, sha256};
  {
    const std::lock_guard lock(verified_mutex_);
    if (const auto place = verified_.find(path); place != verified_.end() && place->second == file) return;
    ++files_hashed_;
  }
  const std::string found = sha256_file(path);
  if (found != sha256)
    throw std::runtime_error(
        fmt::format("{} is damaged or was replaced: its SHA-256 is {}, the manifest says {}. Copy it again from where "
                    "it came from, or prepare the data again",
                    path, found, sha256));
  const std::lock_guard lock(verified_mutex_);
  verified_.insert_or_assign(path, std::move(file));
}

std::int64_t OpenShards::files_hashed() const {
  const std::lock_guard lock(verified_mutex_);
  return files_hashed_;
}

std::size_t OpenShards::size() const {
  const std::lock_guard lock(mutex_);
  return uses_.size();
}

}  // namespace smoe
