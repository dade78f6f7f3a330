// What a tokenizer.model says about itself: its pieces and the settings that encoding depends on, read from the file's
// protocol buffer (message ModelProto of SentencePiece's sentencepiece_model.proto), which the library keeps private.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace smoe {

struct SentencePieceModel {
  enum class Type { unigram = 1, bpe = 2, word = 3, character = 4 };

  std::vector<std::string_view> pieces;  // into the text that was parsed
  Type type = Type::unigram;
  bool byte_fallback = false;
  bool whitespace_is_suffix = false;
  bool add_dummy_prefix = true;  // a space in front of every text
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;  // a space is U+2581
  bool normalizes_characters = false;
  bool denormalizes = false;
  std::string unk_surface = " \xE2\x81\x87 ";
};

// Throws std::runtime_error where the text is no such message, where it holds a character map whose offsets lead out of
// its own bounds (the library follows them unchecked) or that makes long texts of single characters, or where an unknown
// token stands for a long text.
SentencePieceModel parse_sentencepiece_model(std::string_view text);

}  // namespace smoe
