#include "data/text/byte_tokenizer.h"

#include <algorithm>

#include "data/files/sha256.h"

namespace smoe {

std::size_t ByteTokenizer::next_cut(std::string_view text, std::size_t from) const {
  return std::min(text.size(), std::max<std::size_t>(from, 1));
}

void ByteTokenizer::encode_part(std::string_view part, bool, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  ids.resize(before + part.size());
  for (std::size_t i = 0; i < part.size(); ++i) ids[before + i] = first_byte + static_cast<unsigned char>(part[i]);
}

void ByteTokenizer::encode_literal(std::string_view text, TextPlace, std::span<const std::int32_t>,
                                   std::vector<std::int32_t>& ids) const {
  encode_part(text, true, ids);
}

void ByteTokenizer::append_bytes(std::int32_t id, bool, std::string& out) const {
  if (id >= first_byte) out += static_cast<char>(id - first_byte);
}

const std::string& ByteTokenizer::name() const {
  static const std::string name = "bytes";
  return name;
}

const std::string& ByteTokenizer::sha256() const {
  static const std::string hash = sha256_hex("bytes: unk 0, bos 1, eos 2, byte b is 3 + b");
  return hash;
}

const std::string& ByteTokenizer::file() const {
  static const std::string none;
  return none;
}

}  // namespace smoe
