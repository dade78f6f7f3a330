// The shards that are open now: of a corpus of any number of files, the few that were read last. So that neither the
// limit on open files (1,024 as a rule) nor memory bounds the number of shards. And which files were compared with their
// manifests, so that corpora opened one after another through the same OpenShards read each file whole only once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "data/shards/hdf5_file.h"

namespace smoe {

// Which content a path leads to, as far as the file system tells: another file, or one that was written to, differs.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0, bytes = 0;
  std::int64_t modified_ns = 0;

  bool operator==(const FileIdentity&) const = default;
};

struct OpenShard {
  FileIdentity identity;
  Hdf5File file;
  Hdf5Column tokens, loss_mask;  // the latter of size 0 where the shard has none
};

// Thread-safe. What is in use stays open, whatever the limit; it is closed when its last user lets go.
class OpenShards {
 public:
  // most: files held open; 0: 64, or an eighth of the process's limit where that is less.
  explicit OpenShards(std::size_t most = 0);

  // The shard at `path` if it is open and of that identity; else what `open` returns, in place of the one that was not
  // used for the longest time.
  std::shared_ptr<const OpenShard> get(const std::string& path, const FileIdentity& identity,
                                       const std::function<std::shared_ptr<const OpenShard>()>& open);
  std::size_t size() const;
  std::size_t most() const { return most_; }

  // Throws std::runtime_error unless the file's SHA-256 is `sha256`. It is read for that only if no file of this identity
  // and SHA-256 was compared under this path before.
  void verify(const std::string& path, const FileIdentity& identity, const std::string& sha256);
  std::int64_t files_hashed() const;  // by verify()

 private:
  using Uses = std::list<std::pair<std::string, std::shared_ptr<const OpenShard>>>;
  struct Verified {
    FileIdentity identity;
    std::string sha256;
    bool operator==(const Verified&) const = default;
  };

  std::size_t most_;
  mutable std::mutex mutex_;
  Uses uses_;  // the last used first
  std::unordered_map<std::string, Uses::iterator> by_path_;
  mutable std::mutex verified_mutex_;                   // its own: get() calls verify() through `open`
  std::unordered_map<std::string, Verified> verified_;  // by path
  std::int64_t files_hashed_ = 0;
};

}  // namespace smoe
