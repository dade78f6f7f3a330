// The files that make up a tokenizer in a Hugging Face directory, as they travel: from there beside token shards, and
// from either into checkpoints, byte for byte.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

struct TokenizerFile {
  std::string name;  // within its directory
  std::string bytes;

  bool operator==(const TokenizerFile&) const = default;
};

inline constexpr std::array<std::string_view, 9> tokenizer_file_names = {
    "tokenizer.model",         "tokenizer.json",    "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json",      "vocab.json",        "merges.txt"};

// Whether a file of that name says something of a tokenizer.model's ids; the others merely travel.
constexpr bool changes_tokenizer(std::string_view name) {
  return name.ends_with(".json") && name != "chat_template.json" && name != "vocab.json";
}

// Those of them that the directory has, in that order. Throws std::runtime_error where one cannot be read or is above
// 256 MiB.
std::vector<TokenizerFile> read_tokenizer_files(const std::filesystem::path& directory);

}  // namespace smoe
