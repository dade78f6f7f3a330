// The wire format of protocol buffers, read field by field: enough to look into a file without its generated classes.
// https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace smoe {

struct ProtobufField {
  enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

  std::uint32_t number = 0;
  Wire wire = Wire::varint;
  std::uint64_t value = 0;  // a varint, or the bits of a fixed32 or fixed64
  std::string_view bytes;   // a string, a nested message, a packed list

  // A field counts only as the type that its message declares: one that comes as another is unknown, and passed over,
  // to every reader that was generated from the message.
  bool is_varint(std::uint32_t wanted) const { return number == wanted && wire == Wire::varint; }
  bool is_bytes(std::uint32_t wanted) const { return number == wanted && wire == Wire::bytes; }
};

class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  // False at the end. Throws std::runtime_error where the bytes are no message.
  bool next(ProtobufField& field) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) fail();
    field = {static_cast<std::uint32_t>(tag >> 3), static_cast<ProtobufField::Wire>(tag & 7), 0, {}};
    switch (field.wire) {
      case ProtobufField::Wire::varint: field.value = varint(); return true;
      case ProtobufField::Wire::fixed64: field.value = fixed<std::uint64_t>(); return true;
      case ProtobufField::Wire::bytes: field.bytes = take(varint()); return true;
      case ProtobufField::Wire::fixed32: field.value = fixed<std::uint32_t>(); return true;
    }
    fail();  // a group, which no message here has, or a type that there is not
  }

 private:
  [[noreturn]] static void fail() { throw std::runtime_error("not a protocol buffer message, or cut short"); }

  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  template <class T>
  T fixed() {
    static_assert(std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view rest_;
};

}  // namespace smoe
