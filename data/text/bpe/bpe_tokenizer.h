// A tokenizer.json of byte pair encoding, as directories of Llama 3, Qwen, SmolLM, DeepSeek and Mixtral have it.
//
// A text is cut at added tokens, the rest is normalised, cut into words and joined from bytes or characters, as the Python
// package tokenizers does it (https://github.com/huggingface/tokenizers), with add_special_tokens=False.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/text/bpe/bpe_model.h"
#include "data/text/bpe/normalizer.h"
#include "data/text/bpe/piece_decoder.h"
#include "data/text/bpe/pre_tokenizer.h"
#include "data/text/token_trie.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_files.h"

namespace smoe {

class WordCache;

class BpeTokenizer final : public Tokenizer {
 public:
  // files: of a directory that has a tokenizer.json; `directory` names it in messages. bos and eos are those of
  // tokenizer_config.json or special_tokens_map.json; -1 where neither names one. Throws std::runtime_error, with file and
  // key, for what is malformed, contradicts another file, or is not supported.
  BpeTokenizer(const std::string& directory, std::vector<TokenizerFile> files);
  ~BpeTokenizer() override;

  std::size_t next_cut(std::string_view text, std::size_t from) const override;
  void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const override;
  void encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                      std::vector<std::int32_t>& ids) const override;
  NamedToken token_named(std::string_view content) const override;
  std::string token_text(std::int32_t id) const override;
  void append_bytes(std::int32_t id, bool opens_text, std::string& out) const override;
  bool is_control(std::int32_t id) const override;

  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int32_t unk() const override { return model_->unk(); }
  std::int32_t bos() const override { return bos_; }
  std::int32_t eos() const override { return eos_; }

  const std::string& name() const override;
  const std::string& sha256() const override { return sha256_; }  // of the file, and of bos and eos
  const std::string& file() const override;                       // none

 private:
  struct Token {
    std::int32_t id = 0;
    std::string content;
    bool special = false, lstrip = false, rstrip = false;
    bool single_word = false;  // not inside a longer word
  };
  struct Match {
    std::size_t begin = 0, end = 0;  // of the text, white space that belongs to the token included
    const Token* token = nullptr;
  };

  void read_steps(const Json& document, const std::string& where);
  void read_added_tokens(const Json& document, const std::string& where);
  void read_ends(const std::string& directory);
  std::int32_t find_special(const Json& document, const char* key, const std::string& where) const;
  void check_config(const Json& config, const std::string& where) const;
  Match next_match(const TokenTrie& trie, std::string_view text, std::size_t from, const TokensRead& read) const;
  bool is_near_token(std::string_view text, std::size_t cut) const;
  void encode_text(std::string_view text, bool opens_segment, bool opens_text, const TokensRead& read,
                   std::vector<std::int32_t>& ids) const;
  void encode_segment(std::string_view segment, bool opens_segment, bool opens_text, const TokensRead& read,
                      std::vector<std::int32_t>& ids) const;
  void encode_words(std::string text, bool opens_segment, bool opens_text, std::vector<std::int32_t>& ids) const;
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<BpeModel> model_;
  PieceDecoder decoder_;
  std::vector<Token> tokens_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;  // places in tokens_
  TokenTrie raw_, normalized_;                           // tokens that are found before a text is normalised, or after
  bool strips_ = false;                                  // some token takes white space along
  // Where a text may be cut: between a word and a space; between characters that no piece holds side by side; nowhere.
  enum class Cuts : std::uint8_t { nowhere, at_spaces, between_strangers } cuts_ = Cuts::nowhere;
  char32_t space_ = U' ';  // what stands for a space in words
  std::unique_ptr<WordCache> cache_;
  std::int64_t vocab_size_ = 0;
  std::int32_t bos_ = -1, eos_ = -1;
  std::string sha256_;
};

}  // namespace smoe
