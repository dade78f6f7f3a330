// Token ids one after another with nothing around them, u16 or u32, little-endian: what nanoGPT's prepare.py writes. A header as
// llm.c's .bin files have (256 i32: magic 20240520 with u16 or 20240801 with u32, version, number of ids) is passed over, and
// what it says is compared.
//
// Errors: std::runtime_error that names the file, what was found and what is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/files/files.h"

namespace smoe {

// Const members are thread-safe.
class RawIds {
 public:
  RawIds(const std::filesystem::path& path, std::size_t bytes_per_id);  // 2 or 4

  const std::string& path() const { return path_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }  // of one dim
  std::int64_t size() const { return shape_[0]; }
  void read(std::int64_t first, std::int64_t count, std::int64_t* out) const;

 private:
  std::string path_;
  std::size_t bytes_per_id_;
  MappedFile map_;
  std::span<const std::byte> data_;
  std::vector<std::int64_t> shape_;
};

}  // namespace smoe
