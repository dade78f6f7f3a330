#include "data/text/bpe/piece_decoder.h"

#include <fmt/format.h>

#include <optional>
#include <stdexcept>

#include "data/files/utf8.h"
#include "data/text/bpe/byte_letters.h"

namespace smoe {
namespace {

// The bytes that a piece's letters stand for; none where some stands for no byte.
std::optional<std::string> bytes_of_letters(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Char next = read_utf8(piece);
    const auto byte = next.bytes > 0 ? byte_of_letter(next.code) : std::nullopt;
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
    piece.remove_prefix(static_cast<std::size_t>(next.bytes));
  }
  return bytes;
}

}  // namespace

PieceDecoder::PieceDecoder(const Json& decoder, const std::string& where, bool byte_level) : byte_level_(byte_level) {
  add(decoder, where + ": decoder");
  if (byte_level_ != byte_level)
    throw std::runtime_error(where +
                             ": decoder: found ByteLevel, but the pre_tokenizer has none, so words are not spelled so");
}

void PieceDecoder::add(const Json& value, const std::string& where) {
  if (value.is_null()) return;
  const JsonReader step(value, where);
  const std::string& type = step.require_string("type");
  const auto refuse = [&](const std::string& what) {
    throw std::runtime_error(fmt::format("{}: {}: {}", where, quote_for_message(type), what));
  };
  if (type == "Sequence") {
    for (const Json& one : step.require_array("decoders")) add(one, where);
  } else if (type == "ByteLevel") {
    byte_level_ = true;
  } else if (type == "Metaspace") {
    from_ = step.optional_string("replacement").value_or("\xE2\x96\x81");
    to_ = " ";
    const std::string scheme =
        step.optional_string("prepend_scheme")
            .value_or(step.optional_bool("add_prefix_space").value_or(true) ? "always" : "never");
    strips_first_ = scheme != "never";
  } else if (type == "Replace") {
    if (!from_.empty()) refuse("stands there twice, expected one replacement");
    from_ = step.require_object("pattern").require_string("String");
    to_ = step.require_string("content");
    if (from_.empty()) refuse("pattern: found an empty text");
  } else if (type == "Strip") {
    if (step.require_string("content") != " " || step.require_int("start", 0, 1000) > 1 ||
        step.require_int("stop", 0, 1000) != 0)
      refuse("expected content \" \", start 0 or 1, stop 0");
    strips_first_ = strips_first_ || step.require_int("start", 0, 1) == 1;
  } else if (type != "ByteFallback" && type != "Fuse") {
    refuse("is not supported, expected ByteLevel, Metaspace, Replace, ByteFallback, Fuse or Strip");
  }
}

void PieceDecoder::append(std::string_view piece, bool opens_text, std::string& out) const {
  if (byte_level_) {
    const auto bytes = bytes_of_letters(piece);
    out += bytes ? *bytes : std::string(piece);
    return;
  }
  const std::size_t begin = out.size();
  if (from_.empty()) {
    out += piece;
  } else {
    for (std::size_t found; (found = piece.find(from_)) != std::string_view::npos;
         piece.remove_prefix(found + from_.size())) {
      out += piece.substr(0, found);
      out += to_;
    }
    out += piece;
  }
  if (opens_text && strips_first_ && out.size() > begin && out[begin] == ' ') out.erase(begin, 1);
}

}  // namespace smoe
