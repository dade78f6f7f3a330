// What a file is that holds neither text nor ids as they are read here: told by its first bytes, and by its name where
// they leave it open. So that a file of another kind is refused by its name, with what to do, and never taken for text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace smoe {

struct FileKind {
  std::string name;    // as in "FILE is ...": "gzip-compressed", "a PDF document"
  std::string advice;  // what to do, with the file's own name in it
  // A corpus in another wrapping (compressed, a table, UTF-16): whoever names a directory with such a file in it means it.
  // Of the others, an image or a program, that need not be so.
  bool holds_documents = false;
};

// How much of a file's beginning tells its kind.
inline constexpr std::size_t kind_bytes = 64 << 10;

// head: the file's first kind_bytes, or all of it. Nothing: it may be text, JSON or NumPy's .npy.
std::optional<FileKind> foreign_kind(const std::filesystem::path& path, std::string_view head,
                                     std::uint64_t file_bytes);

// The kind of a file of ids in Megatron's format whose other half is missing.
FileKind half_of_a_pair(const std::filesystem::path& path);

// Neither UTF-8, an unfinished last character aside, nor free of zero bytes.
bool looks_binary(std::string_view head);

// The extension in lower case, with its dot.
std::string lower_extension(const std::filesystem::path& path);

}  // namespace smoe
