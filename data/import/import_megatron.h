// Megatron-LM's indexed dataset: token ids in NAME.bin, and where they lie in NAME.idx, all little-endian:
//
//   magic "MMIDIDX\0\0" | u64 version 1 | u8 dtype | u64 sequences S | u64 document bounds D |
//   i32 length[S] | i64 byte offset[S] | i64 first sequence of each document, and S at the end [D] | i8 mode[S] or none
//
// https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/files.h"

namespace smoe {

inline constexpr std::string_view megatron_magic{"MMIDIDX\0\0", 9};

// The half of a pair with that extension, ".idx" or ".bin", of whichever half, or bare name, was given: in lower case, or in
// upper case where only that is there.
std::filesystem::path megatron_half(const std::filesystem::path& given, const std::string& extension);

// Both files, checked as a whole: the index is exactly as long as its counts say, sequences follow one another without
// hole or overlap and fill the .bin, document bounds rise from 0 to S. Const members are thread-safe.
class MegatronFile {
 public:
  // Throws std::runtime_error that names the file, what was found and what was expected.
  explicit MegatronFile(const std::filesystem::path& index);

  const std::string& data_path() const { return data_path_; }
  std::int64_t documents() const { return static_cast<std::int64_t>(document_offsets_.size()) - 1; }
  std::int64_t tokens() const { return document_offsets_.back(); }
  // Document i is tokens [document_offset(i), document_offset(i + 1)); its sequences, joined.
  std::int64_t document_offset(std::int64_t document) const {
    return document_offsets_[static_cast<std::size_t>(document)];
  }
  std::uint64_t bytes_per_token() const { return item_bytes_; }
  // Tokens [first, first + count).
  void read(std::int64_t first, std::int64_t count, std::int64_t* out) const;

 private:
  void read_index(std::string_view text, const std::string& path);

  std::string data_path_;
  MappedFile data_;
  std::uint8_t dtype_ = 0;
  std::uint64_t item_bytes_ = 0;
  std::vector<std::int64_t> document_offsets_;  // in tokens
};

}  // namespace smoe
