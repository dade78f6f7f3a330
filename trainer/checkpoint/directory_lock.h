// One job at a time in a directory: a lock that ends with the process, however that ends.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace smoe {

class DirectoryLock {
 public:
  // Makes the directory and takes its lock. Throws std::runtime_error if it cannot be written, or another process holds
  // it (named in the message) for `patience` seconds on end. what: who writes there, "run"; key: the option that names
  // the directory.
  DirectoryLock(const std::filesystem::path& directory, const std::string& what, const std::string& key,
                double patience = 0.05);
  // Null where another process holds it. name: of the file, where one that does not stand for the directory's writer is meant.
  static std::unique_ptr<DirectoryLock> try_lock(const std::filesystem::path& directory, const std::string& key,
                                                 const std::string& name);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  DirectoryLock() = default;
  // False where another holds it for so long; who: what it said of itself.
  bool lock(const std::filesystem::path& directory, const std::string& key, const std::string& name, double patience,
            std::string& who);

  int file_ = -1;
};

// Who holds a run directory, as its lock says: the same text on all ranks, if they see the same directory.
std::string read_run_lock(const std::filesystem::path& directory);

// Whether a process holds the lock. It is taken for an instant to see that, which whoever takes it meanwhile waits out.
bool is_locked(const std::filesystem::path& directory);

}  // namespace smoe
