// What the tests of tokenizers share: made-up text, a small vocabulary learned from it, and Mixtral's own if it is here.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "data/text/sentencepiece_tokenizer.h"
#include "data/import/train_tokenizer.h"
#include "tests/support/scratch_dir.h"

namespace smoe::test {

// Words of a made-up language with a Zipf-like spread, in sentences with digits, indentation and non-ASCII letters.
inline std::string made_up_text(std::uint32_t seed, int lines) {
  static const std::vector<std::string> syllables = {"ka",    "to", "mi", "ren", "sol", "va", "dé", "ñu",
                                                     "strom", "li", "pe", "ga",  "日",  "本", "の", "wö"};
  std::mt19937 random(seed);
  std::string text;
  for (int line = 0; line < lines; ++line) {
    text.append(random() % 3 == 0 ? 4 * (random() % 3) : 0, ' ');
    const int words = 1 + static_cast<int>(random() % 12);
    for (int word = 0; word < words; ++word) {
      std::mt19937 letters(random() % (1 + random() % 400));  // small seeds are the frequent words
      if (word > 0) text += ' ';
      if (letters() % 9 == 0) {
        text += std::to_string(random() % 5000);
        continue;
      }
      const int parts = 1 + static_cast<int>(letters() % 4);
      for (int i = 0; i < parts; ++i) text += syllables[letters() % syllables.size()];
      if (random() % 8 == 0) text += ',';
    }
    text += random() % 40 == 0 ? "\t\n\n" : ".\n";
  }
  return text;
}

// A vocabulary of 600 learned from made-up text: once a process.
inline const std::string& small_model_file() {
  static const ScratchDir directory;
  static const std::string file = [] {
    spill(directory / "corpus.txt", made_up_text(1, 4000));
    return train_tokenizer({.inputs = {(directory / "corpus.txt").string()},
                            .vocab_size = 600,
                            .out_directory = (directory / "out").string()})
        .file.string();
  }();
  return file;
}

inline const SentencePieceTokenizer& small_tokenizer() {
  static const SentencePieceTokenizer tokenizer(small_model_file());
  return tokenizer;
}

// Where fetch_mixtral_tokenizer.sh puts a file, or what the variable names; empty where it is not here.
inline std::filesystem::path fetched_model_file(const char* variable, const char* name) {
  if (const char* named = std::getenv(variable)) return named;
  const std::filesystem::path fetched = std::filesystem::path(SMOE_BINARY_DIR) / ".." / "fixtures" / name;
  return std::filesystem::exists(fetched) ? fetched : std::filesystem::path();
}

// Of Mixtral 8x7B, and of 8x22B Instruct.
inline std::filesystem::path mixtral_model_file() {
  return fetched_model_file("SMOE_MIXTRAL_TOKENIZER", "tokenizer.model.v1");
}
inline std::filesystem::path mixtral_v3_model_file() {
  return fetched_model_file("SMOE_MIXTRAL_V3_TOKENIZER", "tokenizer.model.v3");
}

// A message of protocol buffers, by hand.
class ProtobufText {
 public:
  ProtobufText& number(unsigned field, std::uint64_t value) { return tag(field, 0).varint(value); }
  ProtobufText& bytes(unsigned field, const std::string& value) {
    tag(field, 2).varint(value.size());
    text_ += value;
    return *this;
  }
  ProtobufText& fixed32(unsigned field, std::uint32_t bits) {
    tag(field, 5);
    text_.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  ProtobufText& tag(unsigned field, unsigned kind) { return varint(field << 3 | kind); }
  ProtobufText& varint(std::uint64_t value) {
    for (; value > 0x7F; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
    return *this;
  }

  std::string text_;
};

// What follows on a model's pieces: its type, byte fallback, and a normaliser that leaves texts as they are.
inline std::string model_settings(const std::string& normalizer_fields = "", int model_type = 2) {
  return ProtobufText()
      .bytes(2, ProtobufText().number(3, static_cast<std::uint64_t>(model_type)).number(35, 1).text())
      .bytes(3, ProtobufText().number(4, 0).text() + normalizer_fields)
      .text();
}

// A model of the 3 special tokens, control pieces, 256 bytes and the pieces given, in that order. scored: each piece has a
// lower score than the one before, so that byte pair encoding joins them in their order.
inline std::string model_of(const std::vector<std::string>& pieces, const std::string& normalizer_fields = "",
                            int model_type = 2, bool scored = false, const std::vector<std::string>& controls = {}) {
  ProtobufText model;
  const auto add = [&](const std::string& piece, std::uint64_t type) {
    model.bytes(1, ProtobufText().bytes(1, piece).number(3, type).text());
  };
  add("<unk>", 2);
  add("<s>", 3);
  add("</s>", 3);
  for (const std::string& control : controls) add(control, 3);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    add(name, 6);
  }
  float score = 0;
  for (const std::string& piece : pieces) {
    ProtobufText fields;
    fields.bytes(1, piece);
    if (scored) fields.fixed32(2, std::bit_cast<std::uint32_t>(score--));
    model.bytes(1, fields.number(3, 1).text());
  }
  return model.text() + model_settings(normalizer_fields, model_type);
}

}  // namespace smoe::test
