// What a file is taken for, by what it holds, its name and the format that was asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/import/corpus_files.h"
#include "data/import/file_kind.h"

namespace smoe {

struct Verdict {
  CorpusFormat format = CorpusFormat::text;
  std::optional<FileKind> kind = std::nullopt;  // for which it is not taken
};

// A file as far as it is looked at.
struct FileHead {
  std::filesystem::path path;
  std::string bytes;       // the first kind_bytes of what it holds, unpacked
  std::uint64_t size = 0;  // of what it holds; of a pipe or what is compressed, as far as that is known
  bool whole = false;      // bytes are all of it
  Compression compression = Compression::none;
  std::shared_ptr<ByteStream> pipe = nullptr;
};

// Opens "-" and pipes, which then wait in `pipe`. Throws std::runtime_error where the file cannot be read, or unpacked.
FileHead look_at(const std::filesystem::path& path);

Verdict format_of(const FileHead& file, CorpusFormat asked);

// A file of a directory that --format text is not to take, though it takes any bytes.
std::optional<FileKind> binary_kind(const FileHead& file);

// Of the half of Megatron's pair that is here, whether the other is there too.
bool has_both_halves(const std::filesystem::path& given);

std::string refusal(const std::filesystem::path& path, const FileKind& kind);

}  // namespace smoe
