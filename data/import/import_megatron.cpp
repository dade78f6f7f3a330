#include "data/import/import_megatron.h"

#include <fmt/format.h>

#include <bit>
#include <cctype>
#include <cstring>
#include <stdexcept>

#include "data/import/file_kind.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little);

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}; is the copy of the .bin and .idx pair complete?", path, what));
}

template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

constexpr std::uint64_t index_header_bytes = 9 + 8 + 1 + 8 + 8;

// 0 for a code that is no integer type.
std::uint64_t bytes_of_dtype(std::uint8_t code) {
  switch (code) {
    case 1: return 1;  // u8
    case 2: return 1;  // i8
    case 3: return 2;  // i16
    case 4: return 4;  // i32
    case 5: return 8;  // i64
    case 8: return 2;  // u16
    default: return 0;
  }
}

template <class T>
void widen(const char* from, std::int64_t count, std::int64_t* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = load<T>(from + static_cast<std::size_t>(i) * sizeof(T));
}

}  // namespace

fs::path megatron_half(const fs::path& given, const std::string& extension) {
  const std::string has = lower_extension(given);
  const fs::path bare = has == ".idx" || has == ".bin" ? fs::path(given).replace_extension() : given;
  std::string upper = extension;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  std::error_code ignored;
  for (const std::string& name : {extension, upper})
    if (const fs::path half = bare.string() + name; fs::is_regular_file(half, ignored)) return half;
  return bare.string() + extension;
}

MegatronFile::MegatronFile(const fs::path& index) {
  const fs::path data = megatron_half(index, ".bin");
  data_path_ = data.string();
  const MappedFile index_file(index);
  data_ = MappedFile(data);
  read_index(text_of(index_file), index.string());
}

void MegatronFile::read_index(std::string_view text, const std::string& path) {
  if (text.size() < index_header_bytes)
    refuse(path, fmt::format("{} bytes, a Megatron index has a header of {}", text.size(), index_header_bytes));
  if (text.substr(0, megatron_magic.size()) != megatron_magic) refuse(path, "does not begin with the magic MMIDIDX");
  const char* at = text.data() + megatron_magic.size();
  if (const auto version = load<std::uint64_t>(at); version != 1)
    refuse(path, fmt::format("index version {}, only version 1 is read", version));
  dtype_ = load<std::uint8_t>(at + 8);
  item_bytes_ = bytes_of_dtype(dtype_);
  if (item_bytes_ == 0) refuse(path, fmt::format("dtype code {}, token ids are integers (codes 1 to 5 and 8)", dtype_));
  const auto sequences = load<std::uint64_t>(at + 9), bounds = load<std::uint64_t>(at + 17);
  const std::uint64_t rest = text.size() - index_header_bytes;
  if (sequences > rest / 12 || bounds > rest / 8 || bounds == 0)
    refuse(path, fmt::format("{} sequences and {} document bounds do not fit into its {} bytes", sequences, bounds,
                             text.size()));
  const std::uint64_t expected = index_header_bytes + sequences * 12 + bounds * 8;
  if (text.size() != expected && text.size() != expected + sequences)  // with one mode byte a sequence
    refuse(path, fmt::format("{} bytes, {} sequences and {} document bounds make {}", text.size(), sequences, bounds,
                             expected));

  const char* lengths = text.data() + index_header_bytes;
  const char* offsets = lengths + sequences * 4;
  const char* documents = offsets + sequences * 8;
  const std::uint64_t data_bytes = data_.bytes().size();
  std::uint64_t end = 0;  // of the sequences so far, in bytes
  std::uint64_t bound = 0;
  const auto pass_bounds_at = [&](std::uint64_t sequence) {
    for (; bound < bounds && load<std::int64_t>(documents + bound * 8) == static_cast<std::int64_t>(sequence); ++bound)
      document_offsets_.push_back(static_cast<std::int64_t>(end / item_bytes_));
  };
  for (std::uint64_t i = 0; i < sequences; ++i) {
    pass_bounds_at(i);
    const auto length = load<std::int32_t>(lengths + i * 4);
    const auto offset = load<std::int64_t>(offsets + i * 8);
    if (length < 0) refuse(path, fmt::format("sequence {} has length {}", i, length));
    if (offset != static_cast<std::int64_t>(end))
      refuse(path, fmt::format("sequence {} begins at byte {}, the one before it ends at {}", i, offset, end));
    end += static_cast<std::uint64_t>(length) * item_bytes_;
    if (end > data_bytes)
      refuse(path, fmt::format("sequence {} ends at byte {}, {} has {}", i, end, data_path_, data_bytes));
  }
  pass_bounds_at(sequences);
  if (end != data_bytes)
    refuse(path, fmt::format("its sequences take {} bytes, {} has {}", end, data_path_, data_bytes));
  if (bound != bounds)
    refuse(path, fmt::format("document bound {} is {}, which is out of order or past the {} sequences", bound,
                             load<std::int64_t>(documents + bound * 8), sequences));
  if (load<std::int64_t>(documents) != 0)
    refuse(path, fmt::format("the first document begins at sequence {}, expected 0", load<std::int64_t>(documents)));
  if (load<std::int64_t>(documents + (bounds - 1) * 8) != static_cast<std::int64_t>(sequences))
    refuse(path, fmt::format("the last document ends at sequence {}, expected {}",
                             load<std::int64_t>(documents + (bounds - 1) * 8), sequences));
}

void MegatronFile::read(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  if (first < 0 || count < 0 || count > tokens() - first)
    throw std::logic_error(fmt::format("tokens [{}, +{}) of {}", first, count, tokens()));
  const char* from = text_of(data_).data() + static_cast<std::uint64_t>(first) * item_bytes_;
  switch (dtype_) {
    case 1: return widen<std::uint8_t>(from, count, out);
    case 2: return widen<std::int8_t>(from, count, out);
    case 3: return widen<std::int16_t>(from, count, out);
    case 4: return widen<std::int32_t>(from, count, out);
    case 5: return widen<std::int64_t>(from, count, out);
    case 8: return widen<std::uint16_t>(from, count, out);
    default: throw std::logic_error("no such dtype");
  }
}

}  // namespace smoe
