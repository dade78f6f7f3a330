// Ids of a document that has begun, until it is known which shard it belongs to: a few in memory, more in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "data/files/files.h"

namespace smoe {

class LaidAside {
 public:
  // directory: of the file, which has no name and is gone with the process; made when it is needed.
  explicit LaidAside(std::filesystem::path directory) : directory_(std::move(directory)) {}

  // Throws std::runtime_error where the file cannot be written.
  void append(std::span<const std::int32_t> ids);
  std::int64_t size() const { return in_file_ + static_cast<std::int64_t>(held_.size()); }
  // Gives them to `use` in their order, in pieces, and has none then.
  void take(const std::function<void(std::span<const std::int32_t>)>& use);

 private:
  std::filesystem::path directory_;
  std::vector<std::int32_t> held_;  // behind those in the file
  File file_;
  std::int64_t in_file_ = 0;
};

}  // namespace smoe
