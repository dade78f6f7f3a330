#include "trainer/convert/carried.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "data/files/files.h"
#include "data/text/tokenizer_files.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {
namespace fs = std::filesystem;

void require_config_json(const fs::path& directory) {
  if (hf_config_file(directory).filename() != "config.json")
    throw std::runtime_error(fmt::format(
        "{}: is in Mistral's own format, expected a config.json: smoe train with model.from and train.steps=0 "
        "writes a Hugging Face directory of it",
        directory.string()));
}

void carry_tensor(const TensorDirectory& from, const std::string& name, TensorDirectoryWriter& to,
                  const std::string& name_there) {
  const TensorInfo& info = from.info(name);
  carry_bytes(from, name, info.end - info.begin, to, name_there);
}

void carry_bytes(const TensorDirectory& from, const std::string& name, std::uint64_t size, TensorDirectoryWriter& to,
                 const std::string& name_there) {
  constexpr std::uint64_t piece = 4 << 20;
  std::vector<std::byte> bytes(std::min(piece, size));
  for (std::uint64_t first = 0; first < size; first += piece) {
    const std::span<std::byte> part = std::span(bytes).first(std::min(piece, size - first));
    from.read_raw(name, first, part);
    to.write_raw(name_there, first, part);
  }
}

void carry_text_files(const fs::path& from, const fs::path& to) {
  for (const TokenizerFile& file : read_tokenizer_files(from)) write_file_atomically(to / file.name, file.bytes);
  const char* generation = "generation_config.json";
  if (fs::exists(from / generation)) copy_file_atomically(from / generation, to / generation);
}

}  // namespace smoe
