// Text to token ids and back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/tokenizer_files.h"

namespace smoe {

// Where a text stands among ids, for what goes in front of it.
enum class TextPlace : std::uint8_t {
  opens,        // as a text of its own
  after_token,  // behind a special token, as transformers reads what follows on one
  inside,       // it goes on from text in front of it that was encoded by itself
};

// Of the tokens that a directory adds, those that are read from a text.
struct TokensRead {
  bool special = true;
  std::span<const std::int32_t> but = {};  // ids of others that are not

  bool has(std::int32_t id, bool is_special) const {
    return (special || !is_special) && std::find(but.begin(), but.end(), id) == but.end();
  }
};

struct NamedToken {
  std::int32_t id = -1;  // -1: there is none
  bool strips = false;   // white space in front of it, or behind it, belongs to it
};

// Const members may be called from several threads at once. Text may hold any bytes; what is not UTF-8 is encoded too
// (SentencePiece reads each such byte as U+FFFD). No text ever encodes to unk, bos or eos of a tokenizer.model: those are
// added as ids. Tokens that a directory adds to it are read from texts, but by encode_literal.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  std::vector<std::int32_t> encode(std::string_view text) const;

  // Valid UTF-8: bytes that ids stand for and that form no character come out as U+FFFD. Control ids (bos, eos) are
  // silent. Throws std::runtime_error on an id outside [0, vocab_size).
  std::string decode(std::span<const std::int32_t> ids) const;

  // Long texts are encoded in parts, several at a time: for p = next_cut(text, from), encode(text) is encode_part of
  // text[0, p) with opens_text, followed by encode_part of the rest without. p is such a place at or after `from` and
  // after the first character, the first but for places near an added token; text.size() where there is none.
  virtual std::size_t next_cut(std::string_view text, std::size_t from) const = 0;
  // Appends the ids of one part to `ids`.
  virtual void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const = 0;

  // Appends the ids of what somebody wrote: special tokens, and those of `unread`, are the characters they are written
  // with. Throws std::runtime_error where a text that goes on inside another has no ids of its own: in a tokenizer.model
  // whose texts are encoded whole.
  virtual void encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                              std::vector<std::int32_t>& ids) const = 0;
  // The control piece or added token, special or not, that is written so.
  virtual NamedToken token_named(std::string_view content) const = 0;
  // Its converse: how a control piece or an added token is written, in [0, vocab_size); empty for other ids.
  virtual std::string token_text(std::int32_t id) const = 0;

  // Appends the bytes that one id stands for. opens_text: no other id but control ids came before; the space that
  // SentencePiece puts in front of a text is then left out. The id must be in [0, vocab_size).
  virtual void append_bytes(std::int32_t id, bool opens_text, std::string& out) const = 0;
  virtual bool is_control(std::int32_t id) const = 0;
  // opens_text of the id that follows on this one, whose own was `opened`.
  virtual bool opens_text_after(std::int32_t id, bool opened) const { return opened && is_control(id); }

  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t unk() const = 0;  // -1: the vocabulary has none; bos and eos likewise
  virtual std::int32_t bos() const = 0;
  virtual std::int32_t eos() const = 0;

  virtual const std::string& name() const = 0;  // of the kind: "bytes", "sentencepiece"
  // Of the file, and of what its directory changes about the ids; equal exactly where the ids mean the same.
  virtual const std::string& sha256() const = 0;
  virtual const std::string& file() const = 0;  // the content of its tokenizer.model; empty where there is none

  // What travels with data and checkpoints: the directory's tokenizer files, or the file alone where it was named itself.
  const std::vector<TokenizerFile>& files() const { return files_; }
  void carry(std::vector<TokenizerFile> files) { files_ = std::move(files); }

  // What its files leave open or can hardly mean, for whoever makes ids with it: a sentence each.
  const std::vector<std::string>& warnings() const { return warnings_; }
  void warn(std::string text) { warnings_.push_back(std::move(text)); }

 private:
  std::vector<TokenizerFile> files_;
  std::vector<std::string> warnings_;
};

// spec: "bytes", a tokenizer.model or a .json file as it stands, or a directory that holds a tokenizer.model, with the tokens
// that it adds (added_tokens.h), or else a tokenizer.json (bpe/bpe_tokenizer.h).
// Throws std::runtime_error: what was looked for, what is there, what to do.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec);

// Whose ids a directory's are.
struct TokenizerIdentity {
  // Of the directory's tokenizer (Tokenizer::sha256), or of the file of one that is not read, which equals no tokenizer's;
  // empty where it holds neither.
  std::string sha256;
  // The file of a tokenizer that is not read, in a directory without a tokenizer.model: a tokenizer.json of a kind that is
  // not supported, or vocab.json or tekken.json; empty where it holds none.
  std::filesystem::path unread;
};

// Throws std::runtime_error where the directory says more of the tokenizer than its tokenizer.model, and that cannot be read.
TokenizerIdentity tokenizer_identity(const std::filesystem::path& directory);

// Decoding while ids are still coming. All that push() and finish() return, joined, is decode() of the ids; no return
// value ends inside a character.
class StreamDecoder {
 public:
  // The tokenizer must outlive the decoder. opens_text: the ids begin as texts do, and not behind others.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool opens_text = true)
      : tokenizer_(&tokenizer), opens_text_(opens_text) {}

  std::string push(std::int32_t id);
  // What is held back because it could still become a character; the decoder then starts afresh.
  std::string finish();

 private:
  std::string take(bool all);

  const Tokenizer* tokenizer_;
  std::string held_;
  bool opens_text_;
};

}  // namespace smoe
