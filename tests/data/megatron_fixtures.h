// Megatron's indexed datasets, written by hand so that tests can also write wrong ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/scratch_dir.h"

namespace smoe::test {

template <class T>
void append_raw(std::string& text, T value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

struct MegatronIndex {
  std::string magic = "MMIDIDX";  // and zeros up to 9 bytes
  std::uint64_t version = 1;
  std::uint8_t dtype = 8;
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> offsets, documents;
  std::optional<std::uint64_t> sequences, bounds;  // what the header claims, where that differs
  bool modes = false;

  std::string text() const {
    std::string text = magic;
    text.resize(9, '\0');
    append_raw(text, version);
    append_raw(text, dtype);
    append_raw(text, sequences.value_or(lengths.size()));
    append_raw(text, bounds.value_or(documents.size()));
    for (const auto length : lengths) append_raw(text, length);
    for (const auto offset : offsets) append_raw(text, offset);
    for (const auto document : documents) append_raw(text, document);
    if (modes) text.append(lengths.size(), '\0');
    return text;
  }
};

// PREFIX.bin and PREFIX.idx, each document one sequence. dtype: Megatron's code.
inline void write_megatron(const std::filesystem::path& prefix, std::uint8_t dtype,
                           const std::vector<std::vector<std::int64_t>>& documents, bool modes = false) {
  MegatronIndex index;
  index.dtype = dtype;
  index.modes = modes;
  index.documents = {0};
  std::string data;
  for (const auto& document : documents) {
    index.lengths.push_back(static_cast<std::int32_t>(document.size()));
    index.offsets.push_back(static_cast<std::int64_t>(data.size()));
    index.documents.push_back(static_cast<std::int64_t>(index.lengths.size()));
    for (const std::int64_t id : document) {
      if (dtype <= 2) append_raw(data, static_cast<std::int8_t>(id));
      if (dtype == 3 || dtype == 8) append_raw(data, static_cast<std::int16_t>(id));
      if (dtype == 4) append_raw(data, static_cast<std::int32_t>(id));
      if (dtype == 5) append_raw(data, id);
    }
  }
  spill(prefix.string() + ".bin", data);
  spill(prefix.string() + ".idx", index.text());
}

}  // namespace smoe::test
