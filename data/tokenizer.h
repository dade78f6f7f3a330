// Text to token ids and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

// Const members may be called from several threads at once. Text may hold any bytes; what is not UTF-8 is encoded too
// (SentencePiece reads each such byte as U+FFFD). No text ever encodes to bos or eos: those are added as ids.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  std::vector<std::int32_t> encode(std::string_view text) const;

  // Valid UTF-8: bytes that ids stand for and that form no character come out as U+FFFD. Control ids (bos, eos) are
  // silent. Throws std::runtime_error on an id outside [0, vocab_size).
  std::string decode(std::span<const std::int32_t> ids) const;

  // Long texts are encoded in parts, several at a time: for p = next_cut(text, from), encode(text) is encode_part of
  // text[0, p) with opens_text, followed by encode_part of the rest without. p is the first such place at or after
  // `from` and after the first character; text.size() where there is none.
  virtual std::size_t next_cut(std::string_view text, std::size_t from) const = 0;
  // Appends the ids of one part to `ids`.
  virtual void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const = 0;

  // Appends the bytes that one id stands for. opens_text: no other id but control ids came before; the space that
  // SentencePiece puts in front of a text is then left out. The id must be in [0, vocab_size).
  virtual void append_bytes(std::int32_t id, bool opens_text, std::string& out) const = 0;
  virtual bool is_control(std::int32_t id) const = 0;

  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t unk() const = 0;  // -1: the vocabulary has none; bos and eos likewise
  virtual std::int32_t bos() const = 0;
  virtual std::int32_t eos() const = 0;

  virtual const std::string& name() const = 0;    // of the kind: "bytes", "sentencepiece"
  virtual const std::string& sha256() const = 0;  // of the file; equal exactly where the ids mean the same
  virtual const std::string& file() const = 0;    // the file's content, to travel with data and checkpoints; may be empty
  virtual const std::string& file_name() const = 0;  // its customary name: "tokenizer.model"; empty where there is none
};

// spec: "bytes", a tokenizer.model file, or a directory that holds one.
// Throws std::runtime_error: what was looked for, what is there, what to do.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec);

// Decoding while ids are still coming. All that push() and finish() return, joined, is decode() of the ids; no return
// value ends inside a character.
class StreamDecoder {
 public:
  // The tokenizer must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  std::string push(std::int32_t id);
  // What is held back because it could still become a character; the decoder then starts afresh.
  std::string finish();

 private:
  std::string take(bool all);

  const Tokenizer* tokenizer_;
  std::string held_;
  bool opens_text_ = true;
};

}  // namespace smoe
