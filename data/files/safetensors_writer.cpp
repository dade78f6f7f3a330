#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "data/files/json.h"
#include "data/files/safetensors.h"

namespace smoe {

namespace {

constexpr std::uint64_t kAlignment = 8;

// Converts values through a buffer small enough to stay in cache: write(first of the part, its numbers).
template <class Stored, class Convert, class Write>
void in_converted_parts(std::span<const float> values, Convert convert, Write&& write) {
  constexpr std::size_t chunk = 1 << 16;
  std::vector<Stored> stored(std::min(chunk, values.size()));
  for (std::size_t done = 0; done < values.size(); done += chunk) {
    const auto part = values.subspan(done, std::min(chunk, values.size() - done));
    std::transform(part.begin(), part.end(), stored.begin(), convert);
    write(done, std::span<const Stored>(stored).first(part.size()));
  }
}

std::string json_text(const std::string& text) { return dump_json(Json(text)); }

// Larger elements first: then each tensor begins at a multiple of its element size, without padding between them.
std::vector<TensorInfo> place_tensors(const std::vector<TensorSpec>& specs) {
  std::vector<TensorInfo> tensors;
  tensors.reserve(specs.size());
  for (const TensorSpec& spec : specs) tensors.push_back({spec});
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return bytes_of(a.type) > bytes_of(b.type); });
  std::uint64_t reached = 0;
  for (TensorInfo& tensor : tensors) {
    tensor.begin = reached;
    if (__builtin_add_overflow(reached, tensor_bytes(tensor, "tensor " + quote_for_message(tensor.name)), &reached))
      throw std::runtime_error("the tensors together are larger than any file");
    tensor.end = reached;
  }
  return tensors;
}

// The file's bytes before the first tensor: the length, then the JSON padded with spaces so that the data is aligned.
std::string header_bytes(const std::vector<TensorInfo>& tensors, TensorMetadata metadata) {
  metadata.try_emplace("format", "pt");
  std::string text = "{\"__metadata__\":" + dump_json(Json(metadata));
  for (const TensorInfo& tensor : tensors)
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", json_text(tensor.name),
                        name_of(tensor.type), shape_text(tensor.shape), tensor.begin, tensor.end);
  text += "}";
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

void SafetensorsWriter::lay_out(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                                const TensorMetadata& metadata) {
  const std::vector<TensorInfo> tensors = place_tensors(specs);
  const std::string header = header_bytes(tensors, metadata);
  const std::uint64_t data_bytes = tensors.empty() ? 0 : tensors.back().end;
  // The reader's own checks, before anything is made: two tensors of one name, a name that means the metadata.
  SafetensorsHeader::parse(std::string_view(header).substr(sizeof(std::uint64_t)), data_bytes, path.string());

  File file = File::create(path);
  try {
    file.reserve(header.size() + data_bytes);
    file.pwrite_all(header.data(), header.size(), 0);
    file.sync();
    file.close();
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

SafetensorsWriter SafetensorsWriter::create(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                                            const TensorMetadata& metadata) {
  lay_out(path, tensors, metadata);
  try {
    return SafetensorsWriter(path, true);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

SafetensorsWriter SafetensorsWriter::open_for_slices(const std::filesystem::path& path) {
  return SafetensorsWriter(path, false);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, bool whole)
    : file_(File::open_to_update(path)),
      header_(SafetensorsHeader::read(file_)),
      written_(header_.tensors().size()),
      whole_(whole),
      remove_unfinished_(whole) {}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : file_(std::move(other.file_)),
      header_(std::move(other.header_)),
      written_(std::move(other.written_)),
      whole_(other.whole_),
      remove_unfinished_(std::exchange(other.remove_unfinished_, false)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (remove_unfinished_) ::unlink(file_.path().c_str());
}

const TensorInfo& SafetensorsWriter::checked(const std::string& name) const {
  if (!file_.is_open()) throw std::logic_error("write after finish() to " + path());
  const TensorInfo* tensor = header_.find(name);
  if (tensor == nullptr)
    throw std::logic_error(fmt::format("no tensor {} was announced for {}", quote_for_message(name), path()));
  return *tensor;
}

void SafetensorsWriter::write_bytes(const TensorInfo& tensor, std::uint64_t first_byte, const void* data,
                                    std::uint64_t bytes) {
  const std::uint64_t size = tensor.end - tensor.begin;
  if (first_byte > size || bytes > size - first_byte)
    throw std::logic_error(
        fmt::format("bytes {}+{} of tensor {}, which has {}", first_byte, bytes, quote_for_message(tensor.name), size));
  file_.pwrite_all(data, bytes, header_.data_offset() + tensor.begin + first_byte);
  written_[static_cast<std::size_t>(&tensor - header_.tensors().data())] += bytes;
}

void SafetensorsWriter::write_f32(const std::string& name, std::int64_t first_element, std::span<const float> values) {
  const TensorInfo& tensor = checked(name);
  if (first_element < 0 || first_element > tensor.elements())
    throw std::logic_error(fmt::format("element {} of tensor {}, which has {}", first_element, quote_for_message(name),
                                       tensor.elements()));
  const auto first = static_cast<std::uint64_t>(first_element);
  const auto write = [&](std::size_t done, auto numbers) {
    write_bytes(tensor, (first + done) * sizeof(numbers[0]), numbers.data(), numbers.size_bytes());
  };
  switch (tensor.type) {
    case TensorType::f32: return write(0, values);
    case TensorType::bf16:
      return in_converted_parts<std::uint16_t>(
          values, [](float x) { return bf16_from_f32(x); }, write);
    case TensorType::f16: return in_converted_parts<std::uint16_t>(values, f16_from_f32, write);
    case TensorType::f64:
      return in_converted_parts<double>(
          values, [](float x) { return static_cast<double>(x); }, write);
    default:
      throw std::logic_error(
          fmt::format("f32 values for tensor {} of {}", quote_for_message(name), name_of(tensor.type)));
  }
}

void SafetensorsWriter::write_raw(const std::string& name, std::uint64_t first_byte, std::span<const std::byte> bytes) {
  write_bytes(checked(name), first_byte, bytes.data(), bytes.size());
}

void SafetensorsWriter::finish() {
  if (!file_.is_open()) throw std::logic_error("finish() twice of " + path());
  for (std::size_t i = 0; whole_ && i < written_.size(); ++i) {
    const TensorInfo& tensor = header_.tensors()[i];
    if (written_[i] != tensor.end - tensor.begin)
      throw std::logic_error(fmt::format("{} of {} bytes of tensor {} were written to {}", written_[i],
                                         tensor.end - tensor.begin, quote_for_message(tensor.name), path()));
  }
  file_.sync();
  file_.close();
  remove_unfinished_ = false;
}

}  // namespace smoe
