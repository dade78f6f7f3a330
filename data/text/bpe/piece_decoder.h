// From pieces of a vocabulary back to the bytes of the text.
#pragma once

#include <string>
#include <string_view>

#include "data/files/json.h"

namespace smoe {

class PieceDecoder {
 public:
  // The value under `decoder`; null: pieces are what they are, and letters for bytes where words are spelled so. Throws
  // std::runtime_error, by name, for a step other than ByteLevel, Metaspace, Replace of one text by another, ByteFallback, Fuse,
  // Strip of one sign in front, and Sequence.
  PieceDecoder(const Json& decoder, const std::string& where, bool byte_level);
  PieceDecoder() = default;

  bool is_byte_level() const { return byte_level_; }
  // Appends what a piece of text stands for. opens_text: no other came before; a space in front may then be left out.
  void append(std::string_view piece, bool opens_text, std::string& out) const;

 private:
  void add(const Json& step, const std::string& where);

  bool byte_level_ = false, strips_first_ = false;
  std::string from_, to_;  // replaced in pieces
};

}  // namespace smoe
