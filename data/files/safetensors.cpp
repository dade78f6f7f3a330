// The format itself: element types and the checks of a header.
#include "data/files/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <tuple>

#include "data/files/json.h"

namespace smoe {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and is read as it lies");

namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr char kMetadataKey[] = "__metadata__";

struct TypeRow {
  const char* name;
  std::uint64_t bytes;
};
// In the order of TensorType.
// clang-format off
constexpr std::array<TypeRow, 17> kTypes{{
    {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
    {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4}, {"C64", 8}, {"F64", 8}, {"I64", 8}, {"U64", 8}}};
// clang-format on

const TypeRow& row_of(TensorType type) { return kTypes.at(static_cast<std::size_t>(type)); }

TensorType type_named(const std::string& name, const std::string& where) {
  for (std::size_t i = 0; i < kTypes.size(); ++i)
    if (name == kTypes[i].name) return static_cast<TensorType>(i);
  std::vector<const char*> known;
  for (const TypeRow& row : kTypes) known.push_back(row.name);
  throw std::runtime_error(
      fmt::format("{}: unknown dtype {}, expected one of {}", where, quote_for_message(name), fmt::join(known, ", ")));
}

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int64_t>::max();

TensorInfo parse_tensor(const std::string& name, const Json& value, const std::string& header_where) {
  const JsonReader fields(value, header_where + ": tensor " + quote_for_message(name));
  fields.refuse_other_keys({"dtype", "shape", "data_offsets"});

  TensorInfo tensor;
  tensor.name = name;
  tensor.type = type_named(fields.require_string("dtype"), fields.where());
  for (const Json& dim : fields.require_array("shape"))
    tensor.shape.push_back(json_int(dim, 0, kMaxInt, fields.where() + ": a dim of its shape"));

  const Json& offsets = fields.require_array("data_offsets");
  if (offsets.size() != 2)
    throw std::runtime_error(fmt::format("{}: {} data_offsets, expected [begin, end]", fields.where(), offsets.size()));
  tensor.begin = static_cast<std::uint64_t>(json_int(offsets[0], 0, kMaxInt, fields.where() + ": data_offsets"));
  tensor.end = static_cast<std::uint64_t>(json_int(offsets[1], 0, kMaxInt, fields.where() + ": data_offsets"));

  const std::uint64_t bytes = tensor_bytes(tensor, fields.where());
  if (tensor.end < tensor.begin || tensor.end - tensor.begin != bytes)
    throw std::runtime_error(fmt::format("{}: data_offsets [{}, {}] do not span the {} bytes of {} {}", fields.where(),
                                         tensor.begin, tensor.end, bytes, name_of(tensor.type),
                                         shape_text(tensor.shape)));
  return tensor;
}

// Null is what some writers put where there is none.
TensorMetadata parse_metadata(const Json& value, const std::string& where) {
  TensorMetadata metadata;
  if (value.is_null()) return metadata;
  const JsonReader object(value, where + ": " + kMetadataKey);
  for (const auto& [key, text] : value.items())
    metadata[key] = json_string(text, object.where() + ": " + quote_for_message(key));
  return metadata;
}

}  // namespace

const char* name_of(TensorType type) { return row_of(type).name; }
std::uint64_t bytes_of(TensorType type) { return row_of(type).bytes; }

bool reads_as_f32(TensorType type) {
  return type == TensorType::f32 || type == TensorType::bf16 || type == TensorType::f16 || type == TensorType::f64;
}

float f32_from_f16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1f;
  const std::uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa x 2^-24, exact in f32
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t widened = exponent == 0x1f ? 0xff : exponent - 15 + 127;
  return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

std::uint16_t f16_from_f32(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  constexpr std::uint32_t infinity = 0x7f800000, first_too_large = 0x477ff000 /* 65520 */, smallest_normal = 0x38800000;
  std::uint32_t half = 0;
  if (magnitude > infinity)
    half = 0x7e00 | ((magnitude >> 13) & 0x3ff);  // quiet, so that a payload in the dropped bits is no infinity
  else if (magnitude >= first_too_large)
    half = 0x7c00;
  else if (magnitude < smallest_normal)  // the last bit of a sum with 0.5 is 2^-24, f16's smallest step
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<std::uint32_t>(0.5f);
  else
    half = ((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - ((127 - 15) << 10);
  return static_cast<std::uint16_t>(sign | half);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t dim : shape) {
    if (text.size() > 1) text += ',';
    text += std::to_string(dim);
  }
  return text += ']';
}

std::uint64_t tensor_bytes(const TensorSpec& spec, const std::string& where) {
  // A zero dim makes the product zero but excuses no overflow of the others: strides are computed from them too.
  std::int64_t bytes = static_cast<std::int64_t>(bytes_of(spec.type));
  bool empty = false;
  for (const std::int64_t dim : spec.shape) {
    if (dim < 0)
      throw std::runtime_error(fmt::format("{}: negative dim in its shape {}", where, shape_text(spec.shape)));
    empty = empty || dim == 0;
    if (dim != 0 && __builtin_mul_overflow(bytes, dim, &bytes))
      throw std::runtime_error(fmt::format("{}: its shape {} of {} is larger than any file", where,
                                           shape_text(spec.shape), name_of(spec.type)));
  }
  return empty ? 0 : static_cast<std::uint64_t>(bytes);
}

SafetensorsHeader SafetensorsHeader::parse(std::string_view text, std::uint64_t data_bytes, const std::string& where) {
  if (text.empty() || text.front() != '{')
    throw std::runtime_error(where + ": the header does not open with '{': not a safetensors file, or a damaged one");
  const Json root = parse_json(text, where + ": header", {.max_bytes = kMaxHeaderBytes, .max_depth = 3});

  SafetensorsHeader header;
  for (const auto& [name, value] : root.items()) {
    if (name == kMetadataKey)
      header.metadata_ = parse_metadata(value, where);
    else
      header.tensors_.push_back(parse_tensor(name, value, where));
  }

  std::sort(header.tensors_.begin(), header.tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t reached = 0;
  for (std::size_t i = 0; i < header.tensors_.size(); ++i) {
    const TensorInfo& tensor = header.tensors_[i];
    if (tensor.begin != reached)
      throw std::runtime_error(
          fmt::format("{}: tensor {} begins at byte {}, expected {} where the one before it ends: {}", where,
                      quote_for_message(tensor.name), tensor.begin, reached,
                      tensor.begin < reached ? "they overlap" : "there is a hole"));
    reached = tensor.end;
    header.index_.emplace(tensor.name, i);
  }
  if (reached != data_bytes)
    throw std::runtime_error(fmt::format("{}: its tensors take {} bytes, the file holds {} after its header: {}", where,
                                         reached, data_bytes,
                                         reached > data_bytes ? "it is cut short" : "foreign bytes follow"));
  return header;
}

SafetensorsHeader SafetensorsHeader::read(const File& file) {
  const std::uint64_t size = file.size();
  std::uint64_t length = 0;
  if (size < sizeof length)
    throw std::runtime_error(
        fmt::format("{}: {} bytes, expected at least 8: not a safetensors file, or one cut short", file.path(), size));
  file.pread_all(&length, sizeof length, 0);
  constexpr std::uint64_t git_lfs = 0x206e6f6973726576;  // "version ", as its pointers begin
  if (length == git_lfs)
    throw std::runtime_error(
        fmt::format("{}: holds a pointer of Git LFS in place of the tensors: fetch them (git lfs pull)", file.path()));
  if (length > kMaxHeaderBytes || length > size - sizeof length)
    throw std::runtime_error(
        fmt::format("{}: a header of {} bytes in a file of {}, expected at most {}: not a safetensors "
                    "file, or one cut short",
                    file.path(), length, size, std::min(kMaxHeaderBytes, size - sizeof length)));
  std::string text(length, '\0');
  file.pread_all(text.data(), text.size(), sizeof length);
  SafetensorsHeader header = parse(text, size - sizeof length - length, file.path());
  header.data_offset_ = sizeof length + length;
  return header;
}

const TensorInfo* SafetensorsHeader::find(const std::string& name) const {
  const auto place = index_.find(name);
  return place == index_.end() ? nullptr : &tensors_[place->second];
}

}  // namespace smoe
