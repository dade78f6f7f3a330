// What a user names as input, as a list of files of known formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

enum class CorpusFormat { automatic, text, jsonl, json, npy, megatron };

// "auto", "text", "jsonl", "json", "npy", "megatron"; throws std::runtime_error that lists them for any other name.
CorpusFormat corpus_format_of(std::string_view name);
const char* name_of(CorpusFormat format);
inline bool carries_ids(CorpusFormat format) { return format == CorpusFormat::npy || format == CorpusFormat::megatron; }

struct CorpusFile {
  std::filesystem::path path;  // of Megatron's pair: the .idx
  CorpusFormat format;         // never automatic
  std::uint64_t bytes;         // of the data; of Megatron's pair: of the .bin
};

// Files of one kind that were found in a directory and are no documents.
struct PassedOver {
  std::string kind;  // "a PNG image", "binary (.dat)"
  std::int64_t files = 0;
  std::filesystem::path first;
};

struct CorpusFiles {
  std::vector<CorpusFile> files;
  std::int64_t skipped_hidden = 0;
  std::vector<PassedOver> passed_over;  // in the order of their first files

  std::uint64_t bytes() const;
  std::string describe_passed_over()
      const;  // "2 files passed over as a PNG image (the first is pics/a.png), ..."; empty: none
};

// Inputs in the order given. A directory stands for all regular files below it, sorted by path; hidden files and
// directories are passed over and counted.
//
// `automatic` goes by what the file holds, and by its name in any case where that leaves it open:
//   .jsonl .ndjson .jsonlines .jl .json, and a first line that is a JSON object under any other name: jsonl; or json where
//     the first byte of such a name is '[', and where the objects of a .json go over several lines
//   .npy or NumPy's magic: npy
//   .bin, .idx, or their name without the extension: megatron
//   anything else that is UTF-8 without zero bytes, as far as its first 64 KiB tell: text
// A file of another kind (compressed, a table, UTF-16, an image; file_kind.h) is never taken for text. One that wraps
// documents is refused wherever it is, and so is a .bin or .idx without the other; one that does not is refused where it is
// named, and passed over, named and counted in a directory. With a format given, files are taken for that: `text` takes
// any bytes of a file that is named, but passes over the binary files of a directory.
//
// Throws std::runtime_error for an input that is missing, unreadable or of another kind, and where nothing is left.
CorpusFiles list_corpus_files(const std::vector<std::string>& inputs, CorpusFormat format);

// Which documents a corpus came from, in a few words: the inputs' names without their directories.
std::string describe_inputs(const std::vector<std::string>& inputs);

}  // namespace smoe
