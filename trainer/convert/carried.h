// What goes from one model's directory into another as it is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/files/tensor_directory.h"

namespace smoe {

// Throws std::runtime_error for a directory in Mistral's own format, whose names and config are not written again.
void require_config_json(const std::filesystem::path& directory);

// All bytes of a tensor, in pieces of a few MiB; of the same type and shape there.
void carry_tensor(const TensorDirectory& from, const std::string& name, TensorDirectoryWriter& to,
                  const std::string& name_there);

// The first `bytes` of a tensor alone.
void carry_bytes(const TensorDirectory& from, const std::string& name, std::uint64_t bytes, TensorDirectoryWriter& to,
                 const std::string& name_there);

// The tokenizer's files (data/text/tokenizer_files.h), and generation_config.json in place of one that is there already.
void carry_text_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace smoe
