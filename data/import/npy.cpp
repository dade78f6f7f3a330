#include "data/import/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "data/files/json.h"

namespace smoe {

namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr std::size_t kNpyAlignment = 64;
constexpr std::size_t kMaxNpyHeaderBytes = 1 << 16;

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// The header is a Python dict literal of three known keys: just enough of that language is understood here.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  Header parse() {
    std::optional<std::string> descr;
    std::optional<bool> fortran_order;
    std::optional<std::vector<std::int64_t>> shape;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !descr)
        descr = string();
      else if (key == "fortran_order" && !fortran_order)
        fortran_order = boolean();
      else if (key == "shape" && !shape)
        shape = tuple();
      else
        refuse(fmt::format("the key {} is unknown or repeated", quote_for_message(key)));
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) refuse("text follows the header's '}'");
    if (!descr || !fortran_order || !shape) refuse("expected the keys descr, fortran_order and shape");
    return {*descr, *fortran_order, *shape};
  }

 private:
  [[noreturn]] void refuse(const std::string& reason) const {
    throw std::runtime_error(fmt::format("{}: damaged .npy header at character {}: {}", where_, at_, reason));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  bool accept(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) refuse(fmt::format("expected '{}'", wanted));
  }

  std::string string() {
    const char quote = accept('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const std::size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) refuse("a string without an end");
    const std::string_view content = text_.substr(at_, end - at_);
    at_ = end + 1;
    return std::string(content);
  }

  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    }
    refuse("expected True or False");
  }

  std::int64_t integer() {
    skip_space();
    const std::size_t start = at_;
    std::int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[at_] - '0', &value))
        refuse("a dim that does not fit 64 bits");
    if (at_ == start) refuse("expected an integer that is not negative");
    return value;
  }

  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      values.push_back(integer());
      if (accept(',')) continue;
      // Python writes a tuple of one with a comma: (5,). Without it, (5) would be a number.
      if (values.size() < 2) refuse("expected ','");
      expect(')');
      break;
    }
    return values;
  }

  std::string_view text_;
  std::string where_;
  std::size_t at_ = 0;
};

// "<i4" -> "i4"; a type of one byte has no order and is written "|i1".
std::string integer_type(const std::string& descr, const std::string& where) {
  static constexpr std::string_view known[] = {"|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"};
  if (std::find(std::begin(known), std::end(known), descr) != std::end(known)) return descr.substr(1);
  std::string hint;
  if (descr.starts_with('>')) hint = "; convert big-endian values first: a.astype(a.dtype.newbyteorder('<'))";
  if (descr.starts_with("<f")) hint = "; token ids are integers: a.astype('<i4')";
  throw std::runtime_error(fmt::format("{}: holds values of type {}, expected one of {}{}", where,
                                       quote_for_message(descr), fmt::join(known, ", "), hint));
}

template <class T>
void widen(const std::byte* from, std::int64_t count, std::int64_t* out, const std::string& path) {
  for (std::int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof value, sizeof value);  // the data may be unaligned
    if (std::is_same_v<T, std::uint64_t> && static_cast<std::int64_t>(value) < 0)
      throw std::runtime_error(
          fmt::format("{}: holds the value {}, more than fits a signed 64-bit integer", path, value));
    out[i] = static_cast<std::int64_t>(value);
  }
}

}  // namespace

NpyFile::NpyFile(const std::filesystem::path& path) : path_(path.string()), map_(path) {
  const std::span<const std::byte> bytes = map_.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < 12 || !text.starts_with(kMagic))
    throw std::runtime_error(path_ + ": not an .npy file: it does not open with \\x93NUMPY and a header");
  const int version = static_cast<unsigned char>(text[6]);
  if (version < 1 || version > 3 || text[7] != 0)
    throw std::runtime_error(fmt::format("{}: .npy format version {}.{}, expected 1.0, 2.0 or 3.0", path_, version,
                                         static_cast<int>(static_cast<unsigned char>(text[7]))));
  // The length of the header is a u16 in version 1 and a u32 after it.
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  std::uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, length_bytes);
  const std::size_t start = 8 + length_bytes;
  if (length > kMaxNpyHeaderBytes || length > text.size() - start)
    throw std::runtime_error(fmt::format("{}: an .npy header of {} bytes in a file of {}: damaged or cut short", path_,
                                         length, text.size()));

  const Header header = HeaderParser(text.substr(start, length), path_).parse();
  type_ = integer_type(header.descr, path_);
  shape_ = header.shape;
  if (header.fortran_order)
    throw std::runtime_error(
        path_ + ": is in Fortran order, expected C order; save it again: np.save(f, np.ascontiguousarray(a))");
  if (shape_.empty() || shape_.size() > 2)
    throw std::runtime_error(
        fmt::format("{}: has {} dims, expected 1 (one document) or 2 (one document a row)", path_, shape_.size()));

  data_ = bytes.subspan(start + length);
  std::uint64_t expected = static_cast<std::uint64_t>(type_[1] - '0');
  bool overflow = false;
  for (const std::int64_t dim : shape_)
    overflow = overflow || __builtin_mul_overflow(expected, static_cast<std::uint64_t>(dim), &expected);
  if (overflow || expected != data_.size())
    throw std::runtime_error(
        fmt::format("{}: its shape {} of {} does not match the {} bytes after its header: damaged or cut short", path_,
                    shape_, type_, data_.size()));
  size_ = static_cast<std::int64_t>(expected) / (type_[1] - '0');
}

void NpyFile::read(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  if (first < 0 || count < 0 || first > size_ - count)
    throw std::logic_error(fmt::format("elements {}+{} of {}, which has {}", first, count, path_, size_));
  const std::byte* from = data_.data() + first * (type_[1] - '0');
  if (type_ == "i1") return widen<std::int8_t>(from, count, out, path_);
  if (type_ == "u1") return widen<std::uint8_t>(from, count, out, path_);
  if (type_ == "i2") return widen<std::int16_t>(from, count, out, path_);
  if (type_ == "u2") return widen<std::uint16_t>(from, count, out, path_);
  if (type_ == "i4") return widen<std::int32_t>(from, count, out, path_);
  if (type_ == "u4") return widen<std::uint32_t>(from, count, out, path_);
  if (type_ == "i8") return widen<std::int64_t>(from, count, out, path_);
  return widen<std::uint64_t>(from, count, out, path_);
}

std::vector<std::int64_t> NpyFile::values() const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(size_));
  read(0, size_, all.data());
  return all;
}

void write_npy(const std::filesystem::path& path, std::span<const std::int32_t> values, std::int64_t rows,
               std::int64_t columns) {
  std::int64_t elements = 0;
  if (rows < 0 || columns < 0 || __builtin_mul_overflow(rows, columns, &elements) ||
      static_cast<std::uint64_t>(elements) != values.size())
    throw std::logic_error(fmt::format("{} values for an array of [{}, {}]", values.size(), rows, columns));
  std::string header = fmt::format("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  const std::size_t before = kMagic.size() + 2 + 2;  // magic, version, length
  header.append(kNpyAlignment - 1 - (before + header.size()) % kNpyAlignment, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());

  AtomicFile file(path);
  file.write(kMagic);
  file.write(std::string_view("\1\0", 2));
  file.write(std::string_view(reinterpret_cast<const char*>(&length), sizeof length));
  file.write(header);
  file.write(std::as_bytes(values));
  file.commit();
}

}  // namespace smoe
