// What a user names as input, as a list of files of known formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

enum class CorpusFormat { automatic, text, jsonl, npy, megatron };

// "auto", "text", "jsonl", "npy", "megatron"; throws std::runtime_error that lists them for any other name.
CorpusFormat corpus_format_of(std::string_view name);
const char* name_of(CorpusFormat format);
inline bool carries_ids(CorpusFormat format) {
  return format == CorpusFormat::npy || format == CorpusFormat::megatron;
}

struct CorpusFile {
  std::filesystem::path path;  // of Megatron's pair: the .idx
  CorpusFormat format;         // never automatic
  std::uint64_t bytes;         // of the data; of Megatron's pair: of the .bin
};

struct CorpusFiles {
  std::vector<CorpusFile> files;
  std::int64_t skipped_hidden = 0, skipped_binary = 0;

  std::uint64_t bytes() const;
};

// Inputs in the order given. A directory stands for all regular files below it, sorted by path; hidden files and
// directories, and files with a zero byte in their first 64 KiB that are no token file, are passed over and counted.
// `automatic` goes by the file: .jsonl or .ndjson, NumPy's magic, a .bin/.idx pair (either name, or both without the
// extension); anything else is text.
// Throws std::runtime_error for an input that is missing or unreadable, and where nothing is left.
CorpusFiles list_corpus_files(const std::vector<std::string>& inputs, CorpusFormat format);

// Which documents a corpus came from, in a few words: the inputs' names without their directories.
std::string describe_inputs(const std::vector<std::string>& inputs);

}  // namespace smoe
