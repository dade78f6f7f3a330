// The safetensors format: a u64 header length N, N bytes of JSON that name every tensor's type, shape and place, then
// the tensors' raw little-endian bytes. https://github.com/huggingface/safetensors#format
//
// A reader here accepts a file only if it is valid as a whole: the header is at most 100 MB and inside the file, opens
// with '{', is UTF-8 JSON without duplicate keys; tensors lie one after another from offset 0 without hole or overlap;
// each one's bytes are shape x type size without overflow; and the file ends with the last tensor.
// A tensor of no elements takes no bytes and is accepted where the order leaves it a place: its begin and end equal
// the end of the tensor before it. Several may share that place; one inside another tensor's bytes is refused.
//
// Errors: std::runtime_error for what a file or a disk does, std::logic_error for a caller's wrong name, type or range.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/files/files.h"

namespace smoe {

// clang-format off
enum class TensorType : std::uint8_t {
  boolean, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64
};
// clang-format on
const char* name_of(TensorType type);     // as in the header: "BF16"
std::uint64_t bytes_of(TensorType type);  // of one element

// To nearest, ties to even; NaN stays NaN. Inline, like its inverse, so that loops over weights vectorise.
inline std::uint16_t bf16_from_f32(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // The quiet bit keeps a NaN whose payload lies in the dropped half from turning into infinity.
  const std::uint32_t nan = (bits >> 16) | 0x40;
  const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}
inline float f32_from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
float f32_from_f16(std::uint16_t bits);
std::uint16_t f16_from_f32(
    float value);  // to nearest, ties to even; NaN stays NaN, what is beyond f16's range is infinity

struct TensorSpec {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<std::int64_t> shape;  // empty: a scalar

  bool operator==(const TensorSpec&) const = default;
};

struct TensorInfo : TensorSpec {
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the data

  std::int64_t elements() const { return static_cast<std::int64_t>((end - begin) / bytes_of(type)); }
};

// Whether a tensor of this type can be read as f32.
bool reads_as_f32(TensorType type);

std::string shape_text(const std::vector<std::int64_t>& shape);  // "[2,3]", as in the header

// Throws std::runtime_error that opens with `where` if the shape holds a negative dim or its bytes do not fit 63 bits.
std::uint64_t tensor_bytes(const TensorSpec& spec, const std::string& where);

using TensorMetadata = std::map<std::string, std::string>;

// A checked header: tensors in the order of their bytes.
class SafetensorsHeader {
 public:
  // `text` is the JSON; `data_bytes` what the file holds after it; `where` opens messages.
  static SafetensorsHeader parse(std::string_view text, std::uint64_t data_bytes, const std::string& where);
  static SafetensorsHeader read(const File& file);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorMetadata& metadata() const { return metadata_; }
  const TensorInfo* find(const std::string& name) const;      // null if absent
  std::uint64_t data_offset() const { return data_offset_; }  // of the first tensor's bytes in the file

 private:
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
  TensorMetadata metadata_;
  std::uint64_t data_offset_ = 0;
};

// One file, checked when it is opened. Const members may be called from several threads.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors(); }
  const TensorMetadata& metadata() const { return header_.metadata(); }
  const TensorInfo* find(const std::string& name) const { return header_.find(name); }
  const TensorInfo& info(const std::string& name) const;  // throws std::runtime_error if absent

  // Elements [first, first + count) of the row-major tensor as f32: F32, BF16 and F16 exactly, F64 rounded to nearest even
  // (beyond f32's range: infinity); other types are refused.
  // Reads without mapping, so that loading a model does not count the file's pages as this process's memory.
  void read_f32(const std::string& name, float* out, std::int64_t first, std::int64_t count) const;
  // Bytes from `first_byte` of the tensor on, of any type; read without mapping too.
  void read_raw(const std::string& name, std::uint64_t first_byte, std::span<std::byte> out) const;
  // All bytes of a tensor, mapped; valid while the reader lives. Aligned for its type in files written here; others
  // may place a tensor at any byte.
  std::span<const std::byte> raw(const std::string& name) const;

 private:
  File file_;
  SafetensorsHeader header_;
  MappedFile map_;
};

// Writes one file whose tensors are all known beforehand: the header and every offset are fixed first, then slices are
// written in any order. The same list gives the same bytes: larger element types first (which aligns every tensor),
// otherwise the order of the list; `__metadata__` holds {"format": "pt"} and what the caller adds.
//
// One process: create(), write, finish(). Several: one calls lay_out(), then each open_for_slices(), write, finish().
// A writer serves one thread at a time.
class SafetensorsWriter {
 public:
  // Makes the file at its final size, with its header and zeros for data, and syncs it; nothing is left on failure.
  static void lay_out(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                      const TensorMetadata& metadata = {});
  // finish() then insists that as many bytes were written to each tensor as it has; unfinished, the file is removed.
  static SafetensorsWriter create(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                                  const TensorMetadata& metadata = {});
  static SafetensorsWriter open_for_slices(const std::filesystem::path& path);

  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors(); }
  bool contains(const std::string& name) const { return header_.find(name) != nullptr; }

  // Elements from `first_element` on; into an F32 or F64 tensor as they are, into a BF16 or F16 one rounded to nearest even.
  void write_f32(const std::string& name, std::int64_t first_element, std::span<const float> values);
  // Bytes of any type, from `first_byte` of the tensor on.
  void write_raw(const std::string& name, std::uint64_t first_byte, std::span<const std::byte> bytes);
  // Syncs and closes, both checked. Nothing can be written afterwards.
  void finish();

 private:
  SafetensorsWriter(const std::filesystem::path& path, bool whole);
  const TensorInfo& checked(const std::string& name) const;
  void write_bytes(const TensorInfo& tensor, std::uint64_t first_byte, const void* data, std::uint64_t bytes);

  File file_;
  SafetensorsHeader header_;
  std::vector<std::uint64_t> written_;  // bytes by tensor, in header order
  bool whole_;
  bool remove_unfinished_;
};

}  // namespace smoe
