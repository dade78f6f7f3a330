// The directory that a conversion writes: whole under its name, or not there.
#pragma once

#include <filesystem>
#include <vector>

namespace smoe {

// Everything is written into a hidden directory beside it, .NAME.unfinished, which takes the name in commit(). What a killed
// conversion left there is removed by the next one to the same place; that it is left and not being written, a lock shows,
// which ends with its process.
class NewDirectory {
 public:
  // Makes the hidden directory, and what is missing above it. Throws std::runtime_error where `target` exists and is not an
  // empty directory, is one of `sources` or lies in it, cannot be made, or is being written by another process.
  NewDirectory(const std::filesystem::path& target, const std::vector<std::filesystem::path>& sources);
  ~NewDirectory();  // removes what was written, unless it was committed
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;

  const std::filesystem::path& path() const { return hidden_; }  // where to write
  // Takes the name, durably. The files are synced already, as all writers of data/files leave them.
  void commit();

 private:
  void lock_hidden();
  void require_free() const;

  std::filesystem::path target_, hidden_;
  int lock_ = -1;  // the hidden directory itself, open
  bool committed_ = false;
};

}  // namespace smoe
