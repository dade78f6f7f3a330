#include "data/text/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "data/text/protobuf_reader.h"

namespace smoe {

namespace {

constexpr std::size_t longest_replacement = 64;   // bytes; of NFKC, the largest map in use, 33
constexpr std::size_t longest_unk_surface = 256;  // bytes; every unknown id decodes to it

// A character map is a u32 length, a double-array trie (darts-clone) of that many bytes and the replacements as
// zero-terminated strings. A unit of the trie leads to its index XOR its offset XOR the next byte.
void check_character_map(std::string_view map) {
  const auto refuse = [](const char* what) {
    throw std::runtime_error(fmt::format("its normaliser's character map is damaged ({})", what));
  };
  std::uint32_t trie_bytes = 0;
  if (map.size() <= sizeof(trie_bytes)) refuse("too short");
  std::memcpy(&trie_bytes, map.data(), sizeof(trie_bytes));
  map.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes >= map.size() || trie_bytes % 1024 != 0 || trie_bytes == 0) refuse("its trie's size");
  const std::string_view replacements = map.substr(trie_bytes);
  if (replacements.back() != '\0') refuse("its text does not end");
  std::vector<std::uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), map.data(), trie_bytes);
  for (std::size_t i = 0; i < units.size(); ++i) {
    const std::uint32_t unit = units[i];
    if (unit >> 31) {  // a leaf: a value, never followed; but the search starts from the root without looking
      if (i == 0) refuse("its root");
      continue;
    }
    const std::uint64_t offset = static_cast<std::uint64_t>(unit >> 10) << ((unit & 1u << 9) >> 6);
    const std::uint64_t child = i ^ offset;
    if ((child | 0xFF) >= units.size()) refuse("an offset");
    const bool has_leaf = (unit >> 8) & 1;
    if (!has_leaf) continue;
    const std::size_t place = units[child] & 0x7FFFFFFF;
    if (place >= replacements.size()) refuse("a replacement's place");
    if (replacements.find('\0', place) - place > longest_replacement)
      throw std::runtime_error(fmt::format("its normaliser's character map replaces a character by more than {} bytes",
                                           longest_replacement));
  }
}

std::string_view piece_of(std::string_view message) {
  ProtobufReader reader(message);
  std::string_view piece;
  for (ProtobufField field; reader.next(field);)
    if (field.is_bytes(1)) piece = field.bytes;
  return piece;
}

void read_trainer_spec(std::string_view message, SentencePieceModel& model) {
  ProtobufReader reader(message);
  for (ProtobufField field; reader.next(field);) {
    if (field.is_varint(3)) {
      const auto type = static_cast<std::int32_t>(field.value);
      if (type >= 1 && type <= 4)
        model.type = static_cast<SentencePieceModel::Type>(type);  // others are unknown fields
    }
    if (field.is_varint(24)) model.whitespace_is_suffix = field.value != 0;
    if (field.is_varint(35)) model.byte_fallback = field.value != 0;
    if (field.is_bytes(44)) model.unk_surface = field.bytes;
  }
  if (model.unk_surface.size() > longest_unk_surface)
    throw std::runtime_error(fmt::format("an unknown token stands for {} bytes of text, expected at most {}",
                                         model.unk_surface.size(), longest_unk_surface));
}

bool has_character_map(std::string_view normalizer_spec) {
  ProtobufReader reader(normalizer_spec);
  bool has_map = false;
  for (ProtobufField field; reader.next(field);)
    if (field.is_bytes(2) && !field.bytes.empty()) {
      check_character_map(field.bytes);
      has_map = true;
    }
  return has_map;
}

void read_normalizer_spec(std::string_view message, SentencePieceModel& model) {
  model.normalizes_characters |= has_character_map(message);
  ProtobufReader reader(message);
  for (ProtobufField field; reader.next(field);) {
    if (field.is_varint(3)) model.add_dummy_prefix = field.value != 0;
    if (field.is_varint(4)) model.remove_extra_whitespaces = field.value != 0;
    if (field.is_varint(5)) model.escape_whitespaces = field.value != 0;
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view text) {
  SentencePieceModel model;
  ProtobufReader reader(text);
  for (ProtobufField field; reader.next(field);) {
    if (field.is_bytes(1)) model.pieces.push_back(piece_of(field.bytes));
    if (field.is_bytes(2)) read_trainer_spec(field.bytes, model);
    if (field.is_bytes(3)) read_normalizer_spec(field.bytes, model);
    if (field.is_bytes(5)) model.denormalizes |= has_character_map(field.bytes);
  }
  return model;
}

}  // namespace smoe
