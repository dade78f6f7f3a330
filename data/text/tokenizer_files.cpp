#include "data/text/tokenizer_files.h"

#include <cstdint>

#include "data/files/files.h"

namespace smoe {

std::vector<TokenizerFile> read_tokenizer_files(const std::filesystem::path& directory) {
  constexpr std::uint64_t max_bytes = 256 << 20;
  std::vector<TokenizerFile> files;
  for (const std::string_view name : tokenizer_file_names)
    if (const auto path = directory / name; std::filesystem::exists(path))
      files.push_back({std::string(name), read_file(path, max_bytes)});
  return files;
}

}  // namespace smoe
