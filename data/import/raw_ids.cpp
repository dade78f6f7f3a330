#include "data/import/raw_ids.h"

#include <fmt/format.h>

#include <cstring>
#include <stdexcept>

namespace smoe {

namespace {

constexpr std::size_t llmc_header_bytes = 256 * 4;
constexpr std::int32_t llmc_magic_u16 = 20240520, llmc_magic_u32 = 20240801;

}  // namespace

RawIds::RawIds(const std::filesystem::path& path, std::size_t bytes_per_id)
    : path_(path.string()), bytes_per_id_(bytes_per_id), map_(path), data_(map_.bytes()) {
  std::int32_t header[3] = {};
  const bool has_header =
      data_.size() >= llmc_header_bytes &&
      (std::memcpy(header, data_.data(), sizeof header), header[0] == llmc_magic_u16 || header[0] == llmc_magic_u32);
  if (has_header) {
    const std::size_t says = header[0] == llmc_magic_u16 ? 2 : 4;
    data_ = data_.subspan(llmc_header_bytes);
    if (says != bytes_per_id)
      throw std::runtime_error(
          fmt::format("{}: its header (llm.c's) says ids of {} bits: --format u{}", path_, says * 8, says * 8));
    if (header[2] < 0 || static_cast<std::uint64_t>(header[2]) * says != data_.size())
      throw std::runtime_error(
          fmt::format("{}: its header (llm.c's) says {} ids of {} bits, and {} bytes follow it: damaged or cut short",
                      path_, header[2], says * 8, data_.size()));
  }
  if (data_.size() % bytes_per_id != 0)
    throw std::runtime_error(
        fmt::format("{}: {} bytes are no whole number of ids of {} bits: cut short, or of another format", path_,
                    data_.size(), bytes_per_id * 8));
  shape_ = {static_cast<std::int64_t>(data_.size() / bytes_per_id)};
}

void RawIds::read(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  if (first < 0 || count < 0 || first > size() - count)
    throw std::logic_error(fmt::format("ids {}+{} of {}, which has {}", first, count, path_, size()));
  const std::byte* at = data_.data() + static_cast<std::size_t>(first) * bytes_per_id_;
  for (std::int64_t i = 0; i < count; ++i, at += bytes_per_id_) {
    std::uint32_t id = 0;
    std::memcpy(&id, at, bytes_per_id_);  // the machine is little-endian, as the file is
    out[i] = id;
  }
}

}  // namespace smoe
