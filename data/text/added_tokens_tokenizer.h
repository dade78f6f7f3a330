// A SentencePiece tokenizer and the tokens that its directory adds.
//
// A text is cut at the contents of added tokens, from left to right, the longest where several begin; they become their
// ids, and what lies between is encoded by SentencePiece. This is what transformers does, but for one thing: unk, bos
// and eos of the model are never read from a text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/text/added_tokens.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/token_trie.h"
#include "data/text/tokenizer.h"

namespace smoe {

class AddedTokensTokenizer final : public Tokenizer {
 public:
  AddedTokensTokenizer(std::unique_ptr<SentencePieceTokenizer> model, AddedTokens added);

  std::size_t next_cut(std::string_view text, std::size_t from) const override;
  void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const override;
  void encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                      std::vector<std::int32_t>& ids) const override;
  NamedToken token_named(std::string_view content) const override;
  std::string token_text(std::int32_t id) const override;
  void append_bytes(std::int32_t id, bool opens_text, std::string& out) const override;
  bool is_control(std::int32_t id) const override;
  bool opens_text_after(std::int32_t id, bool opened) const override;

  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int32_t unk() const override { return model_->unk(); }
  std::int32_t bos() const override { return added_.bos; }
  std::int32_t eos() const override { return added_.eos; }

  const std::string& name() const override { return model_->name(); }
  const std::string& sha256() const override { return sha256_; }  // of tokenizer.model's and of what changes the ids
  const std::string& file() const override { return model_->file(); }

 private:
  struct Match {
    std::size_t begin = 0, end = 0;  // of the text, white space that belongs to the token included
    std::int32_t id = 0;
  };

  std::optional<Match> next_match(std::string_view text, std::size_t from, const TokensRead& read) const;
  void encode_text(std::string_view text, bool space_in_front, const TokensRead& read,
                   std::vector<std::int32_t>& ids) const;
  const AddedToken* find(std::int32_t id) const;

  std::unique_ptr<SentencePieceTokenizer> model_;
  AddedTokens added_;
  std::int64_t vocab_size_;
  std::string sha256_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;  // places in added_.tokens
  TokenTrie trie_;                                       // of their contents
  bool strips_ = false;                                  // some token takes white space along
};

}  // namespace smoe
