#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "data/files/json.h"
#include "data/files/safetensors.h"

namespace smoe {

namespace {

// Converts a run of elements through a buffer small enough to stay in cache.
template <class Stored, class Convert>
void read_converted(const File& file, std::uint64_t offset, float* out, std::int64_t count, Convert convert) {
  constexpr std::int64_t chunk = 1 << 16;
  std::vector<Stored> buffer(static_cast<std::size_t>(std::min(chunk, count)));
  for (std::int64_t done = 0; done < count; done += chunk) {
    const auto n = static_cast<std::size_t>(std::min(chunk, count - done));
    file.pread_all(buffer.data(), n * sizeof(Stored), offset + static_cast<std::uint64_t>(done) * sizeof(Stored));
    std::transform(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(n), out + done, convert);
  }
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : file_(File::open_to_read(path)), header_(SafetensorsHeader::read(file_)), map_(file_) {
  const std::uint64_t data_bytes = tensors().empty() ? 0 : tensors().back().end;
  if (map_.bytes().size() != header_.data_offset() + data_bytes)
    throw std::runtime_error(file_.path() + ": the file changed while it was opened");
}

const TensorInfo& SafetensorsReader::info(const std::string& name) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr)
    throw std::runtime_error(
        fmt::format("{}: no tensor {} among its {}", path(), quote_for_message(name), tensors().size()));
  return *tensor;
}

void SafetensorsReader::read_f32(const std::string& name, float* out, std::int64_t first, std::int64_t count) const {
  const TensorInfo& tensor = info(name);
  if (first < 0 || count < 0 || first > tensor.elements() - count)
    throw std::logic_error(
        fmt::format("elements {}+{} of tensor {}, which has {}", first, count, name, tensor.elements()));
  const std::uint64_t offset =
      header_.data_offset() + tensor.begin + static_cast<std::uint64_t>(first) * bytes_of(tensor.type);
  switch (tensor.type) {
    case TensorType::f32: return file_.pread_all(out, static_cast<std::size_t>(count) * sizeof(float), offset);
    case TensorType::bf16:
      return read_converted<std::uint16_t>(file_, offset, out, count, [](std::uint16_t x) { return f32_from_bf16(x); });
    case TensorType::f16:
      return read_converted<std::uint16_t>(file_, offset, out, count, [](std::uint16_t x) { return f32_from_f16(x); });
    case TensorType::f64:
      return read_converted<double>(file_, offset, out, count, [](double x) { return static_cast<float>(x); });
    default:
      throw std::runtime_error(fmt::format("{}: tensor {} is {}, expected F32, F64, BF16 or F16", path(),
                                           quote_for_message(name), name_of(tensor.type)));
  }
}

void SafetensorsReader::read_raw(const std::string& name, std::uint64_t first_byte, std::span<std::byte> out) const {
  const TensorInfo& tensor = info(name);
  const std::uint64_t size = tensor.end - tensor.begin;
  if (first_byte > size || out.size() > size - first_byte)
    throw std::logic_error(fmt::format("bytes {}+{} of tensor {}, which has {}", first_byte, out.size(), name, size));
  file_.pread_all(out.data(), out.size(), header_.data_offset() + tensor.begin + first_byte);
}

std::span<const std::byte> SafetensorsReader::raw(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  return map_.bytes().subspan(header_.data_offset() + tensor.begin, tensor.end - tensor.begin);
}

}  // namespace smoe
