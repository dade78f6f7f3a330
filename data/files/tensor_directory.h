// The weights of a model's directory: one model.safetensors, or model-0000i-of-0000n.safetensors files under a
// model.safetensors.index.json, as Hugging Face has them. Where it has neither, Mistral's own files: a
// consolidated.safetensors, the files under a consolidated.safetensors.index.json, or all consolidated*.safetensors.
// Nothing but these names is opened, and no pickle is ever read.
//
// Errors: std::runtime_error that names the directory or file, what was found and what to do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/files/safetensors.h"

namespace smoe {

inline constexpr char kSingleWeightsFile[] = "model.safetensors";
inline constexpr char kWeightsIndexFile[] = "model.safetensors.index.json";
inline constexpr char kMistralWeightsFile[] = "consolidated.safetensors";
inline constexpr char kMistralIndexFile[] = "consolidated.safetensors.index.json";

// A buffer that older software saved beside the weights and that everybody computes anew; it is nobody's weight.
inline bool is_computed_buffer(std::string_view name) {
  return name.find("rotary_emb.inv_freq") != std::string_view::npos;
}

// Opening checks everything: each listed file is there, regular (symlinks are followed) and valid, holds exactly the
// tensors that the index gives it (computed buffers aside), no tensor is in two files, and no name leads out of the
// directory. Const members are thread-safe.
class TensorDirectory {
 public:
  explicit TensorDirectory(const std::filesystem::path& directory);

  const std::filesystem::path& path() const { return directory_; }
  std::vector<std::filesystem::path> files() const;                 // weights files, without the index
  const std::vector<std::string>& names() const { return names_; }  // by file, then in the order of their bytes
  bool contains(const std::string& name) const { return holder_.contains(name); }
  const std::string& file_of(const std::string& name) const { return reader_of(name).path(); }
  const TensorInfo& info(const std::string& name) const { return reader_of(name).info(name); }

  // As SafetensorsReader's.
  void read_f32(const std::string& name, float* out, std::int64_t first, std::int64_t count) const;
  void read_raw(const std::string& name, std::uint64_t first_byte, std::span<std::byte> out) const {
    reader_of(name).read_raw(name, first_byte, out);
  }
  std::span<const std::byte> raw(const std::string& name) const { return reader_of(name).raw(name); }

 private:
  bool open_layout(const char* single_file, const char* index_file);
  void open_sharded(const char* index_file);
  void add(SafetensorsReader reader);
  const SafetensorsReader& reader_of(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<SafetensorsReader> readers_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t> holder_;  // tensor name -> index into readers_
};

// The split of a list of tensors over files: in list order, a new file where the next tensor would pass the limit.
// A tensor larger than the limit has a file of its own. One file is called model.safetensors and needs no index.
struct TensorFilePlan {
  std::string file;  // basename
  std::vector<TensorSpec> tensors;
};
inline constexpr std::uint64_t kDefaultMaxShardBytes = 5'000'000'000;
std::vector<TensorFilePlan> plan_tensor_files(const std::vector<TensorSpec>& tensors,
                                              std::uint64_t max_shard_bytes = kDefaultMaxShardBytes);

// Writes such a directory, which must exist and hold no weights yet. The index comes last, in finish().
//
// One process: create(), write, finish(). Several, with equal arguments: one calls lay_out(), then each
// open_for_slices(), write, finish(); when all have finished, one calls write_index().
class TensorDirectoryWriter {
 public:
  // Throws std::runtime_error where there would be more files than this process may have open at once, as a writer has them.
  static void require_few_files(const std::vector<TensorSpec>& tensors, std::uint64_t max_shard_bytes);
  static void lay_out(const std::filesystem::path& directory, const std::vector<TensorSpec>& tensors,
                      std::uint64_t max_shard_bytes = kDefaultMaxShardBytes);
  static TensorDirectoryWriter create(const std::filesystem::path& directory, const std::vector<TensorSpec>& tensors,
                                      std::uint64_t max_shard_bytes = kDefaultMaxShardBytes);
  static TensorDirectoryWriter open_for_slices(const std::filesystem::path& directory,
                                               const std::vector<TensorSpec>& tensors,
                                               std::uint64_t max_shard_bytes = kDefaultMaxShardBytes);
  // Does nothing where one file holds everything.
  static void write_index(const std::filesystem::path& directory, const std::vector<TensorSpec>& tensors,
                          std::uint64_t max_shard_bytes = kDefaultMaxShardBytes);

  // As SafetensorsWriter's.
  void write_f32(const std::string& name, std::int64_t first_element, std::span<const float> values);
  void write_raw(const std::string& name, std::uint64_t first_byte, std::span<const std::byte> bytes);
  void finish();

 private:
  TensorDirectoryWriter(std::filesystem::path directory, std::vector<TensorSpec> tensors, std::uint64_t max_shard_bytes,
                        bool whole);
  SafetensorsWriter& writer_of(const std::string& name);

  std::filesystem::path directory_;
  std::vector<TensorSpec> tensors_;
  std::uint64_t max_shard_bytes_;
  bool whole_;
  std::vector<SafetensorsWriter> writers_;
  std::unordered_map<std::string, std::size_t> holder_;
};

}  // namespace smoe
