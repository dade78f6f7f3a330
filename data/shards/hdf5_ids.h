// Token ids out of anybody's HDF5 file: a dataset of integers, of one or two dims, however it is stored inside the file; and
// shards as they are written here, with the documents that they state.
//
// HDF5 is not safe against hostile files, and here no checksum stands before it: what can be refused after opening is
// refused (hdf5_file.h). Chunks of more than 256 MiB are, too.
//
// Errors: std::runtime_error with the file, the dataset, what was found and what is read.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/shards/hdf5_file.h"

namespace smoe {

// Const members are thread-safe.
class Hdf5Ids {
 public:
  // dataset: its path in the file. Empty: the file must be a token shard; one with a loss_mask is refused, because what it
  // masks would be lost. Where there is no such dataset, the message names those that are.
  Hdf5Ids(const std::filesystem::path& path, const std::string& dataset);

  const std::string& path() const { return name_; }                  // for messages: "FILE: /dataset"
  const std::vector<std::int64_t>& shape() const { return shape_; }  // 1 or 2 dims
  std::int64_t size() const;                                         // elements
  // Elements [first, first + count) in row-major order. A value above 2^63 - 1 reads as that.
  void read(std::int64_t first, std::int64_t count, std::int64_t* out) const;

  // Of a token shard alone: document i is elements [document_offset(i), document_offset(i + 1)).
  bool has_documents() const { return !offsets_.empty(); }
  std::int64_t documents() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  std::int64_t document_offset(std::int64_t document) const {
    return static_cast<std::int64_t>(offsets_[static_cast<std::size_t>(document)]);
  }
  std::uint64_t bytes_per_token() const { return bytes_per_token_; }

 private:
  void open_dataset(const std::string& dataset);
  void read_offsets();
  void check_storage() const;
  void read_block(const hsize_t* start, const hsize_t* count, std::int64_t* out) const;
  std::string datasets() const;
  [[noreturn]] void refuse(const std::string& what) const;

  std::string file_name_, name_;
  Hdf5Handle file_, dataset_;
  std::vector<std::int64_t> shape_;
  std::vector<std::uint64_t> offsets_;
  std::uint64_t bytes_per_token_ = 0;
  bool is_u64_ = false;
};

}  // namespace smoe
