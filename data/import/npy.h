// NumPy's .npy files of integers: format versions 1 to 3, little-endian, C order, one or two dims.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
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

// A checked, mapped file; elements are converted to i64 as they are read. Const members are thread-safe.
class NpyFile {
 public:
  explicit NpyFile(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }  // 1 or 2 dims
  const std::string& type() const { return type_; }                  // "i1", "u1", ... "u8"
  std::int64_t size() const { return size_; }                        // elements

  // Elements [first, first + count) in row-major order. A u8 value above 2^63 - 1 is refused.
  void read(std::int64_t first, std::int64_t count, std::int64_t* out) const;
  std::vector<std::int64_t> values() const;

 private:
  std::string path_;
  std::vector<std::int64_t> shape_;
  std::string type_;
  std::int64_t size_ = 0;
  MappedFile map_;
  std::span<const std::byte> data_;
};

// A [rows, columns] file of i4, written atomically; byte for byte what numpy.save writes.
void write_npy(const std::filesystem::path& path, std::span<const std::int32_t> values, std::int64_t rows,
               std::int64_t columns);

}  // namespace smoe
