// What a user names as input, as a list of files of known formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/byte_stream.h"

namespace smoe {

enum class CorpusFormat { automatic, text, jsonl, json, npy, megatron, hdf5, u16, u32, parquet };

// "auto", "text", "jsonl", ...; throws std::runtime_error that lists them for any other name.
CorpusFormat corpus_format_of(std::string_view name);
const char* name_of(CorpusFormat format);
std::vector<std::string> corpus_format_names();
// The others hold text.
bool carries_ids(CorpusFormat format);

struct CorpusFile {
  std::filesystem::path path;  // of Megatron's pair: the .idx; "-" is standard input
  CorpusFormat format;         // never automatic
  std::uint64_t bytes = 0;     // of the file; of Megatron's pair: of the .bin; 0 of a pipe, which does not tell
  Compression compression = Compression::none;
  // Of a pipe, which cannot be opened twice: what it was looked at with. It is read once.
  std::shared_ptr<ByteStream> pipe = nullptr;

  std::string name() const { return display_name(path); }  // for messages
  bool is_stream() const { return pipe || compression != Compression::none; }
  std::shared_ptr<ByteStream> open_stream() const;  // unpacked
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

  std::uint64_t bytes() const;  // 0 where a pipe is among them
  std::string describe_passed_over()
      const;  // "2 files passed over as a PNG image (the first is pics/a.png), ..."; empty: none
};

// Inputs in the order given: files; pipes (FIFOs, /dev/fd/N) and "-", standard input; directories; and patterns as a shell has
// them ('data/**/*.jsonl.gz'; expand_pattern() of path_pattern.h), where no file has that very name. A directory stands for all
// regular files below it, sorted by path; hidden files and directories are passed over and counted.
//
// `automatic` goes by what the file holds, and by its name in any case where that leaves it open:
//   .jsonl .ndjson .jsonlines .jl .json, and a first line that is a JSON object under any other name: jsonl; or json where
//     the first byte of such a name is '[', and where the objects of a .json go over several lines
//   .npy or NumPy's magic: npy; HDF5's and Parquet's magic: hdf5, parquet
//   .bin, .idx, or their name without the extension: megatron
//   anything else that is UTF-8 without zero bytes, as far as its first 64 KiB tell: text
// What is compressed with gzip or zstd is judged, and read, as what it holds: whatever its name, and in any format.
// A file of another kind (another archive, a table, UTF-16, an image; file_kind.h) is never taken for text. One that wraps
// documents is refused wherever it is, and so is a .bin or .idx without the other; one that does not is refused where it is
// named, and passed over, named and counted in a directory. With a format given, files are taken for that: `text` takes
// any bytes of a file that is named, but passes over the binary files of a directory. u16 and u32 have to be given.
// Ids are read in place: those of a pipe, or compressed, are refused.
//
// Throws std::runtime_error for an input that is missing, unreadable, damaged or of another kind, and where nothing is left.
CorpusFiles list_corpus_files(const std::vector<std::string>& inputs, CorpusFormat format);

// Which documents a corpus came from, in a few words: the inputs' names without their directories.
std::string describe_inputs(const std::vector<std::string>& inputs);

}  // namespace smoe
