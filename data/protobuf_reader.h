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
  std::uint32_t number = 0;
  std::uint64_t value = 0;  // a varint, or the bits of a fixed32 or fixed64
  std::string_view bytes;   // a string, a nested message, a packed list
};

class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  // False at the end. Throws std::runtime_error where the bytes are no message.
  bool next(ProtobufField& field) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) fail();
    field = {static_cast<std::uint32_t>(tag >> 3), 0, {}};
    switch (tag & 7) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed<std::uint64_t>(); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = fixed<std::uint32_t>(); break;
      default: fail();
    }
    return true;
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
