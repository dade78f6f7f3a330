// A SentencePiece tokenizer.model, as Mistral and Mixtral ship it.
//
// Encoding is the library's, word by word. Byte pair encoding only ever joins neighbouring characters that some piece
// holds side by side; where a text has two neighbours that no piece so holds, nothing joins across them, and the two
// sides encode independently. So a text is cut there, and words that came before are looked up. For models where this
// does not hold (unigram, no byte fallback, a normaliser that rewrites characters), the library gets the whole text.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "data/text/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace smoe {

struct SentencePieceModel;
class WordCache;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Throws std::runtime_error if the file is missing, above 256 MiB, or no model that the library takes.
  explicit SentencePieceTokenizer(const std::filesystem::path& path);
  ~SentencePieceTokenizer() override;

  std::size_t next_cut(std::string_view text, std::size_t from) const override;
  void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const override;
  void encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                      std::vector<std::int32_t>& ids) const override;
  NamedToken token_named(std::string_view content) const override;
  std::string token_text(std::int32_t id) const override;
  void append_bytes(std::int32_t id, bool opens_text, std::string& out) const override;
  bool is_control(std::int32_t id) const override;

  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int32_t unk() const override { return unk_; }
  std::int32_t bos() const override { return bos_; }
  std::int32_t eos() const override { return eos_; }

  const std::string& name() const override;
  const std::string& sha256() const override { return sha256_; }
  const std::string& file() const override { return file_; }

  // Whether texts are cut into words, or encoded whole.
  bool cuts_text() const { return cuts_text_; }
  // Whether a space is put in front of a text.
  bool adds_space() const { return adds_space_; }
  // The text of a piece as the vocabulary has it (a space is U+2581), and the id of such a text; -1: no piece.
  const std::string& piece(std::int32_t id) const;
  std::int32_t id_of_piece(const std::string& text) const;
  // What byte pair encoding goes by: pieces of higher score are joined first, and only into pieces that texts may hold.
  bool joins_pairs() const { return joins_pairs_; }  // it is a byte pair encoding
  float score(std::int32_t id) const;
  bool is_text(std::int32_t id) const;  // neither unk, control, byte nor unused piece
  bool falls_back_to_bytes() const { return falls_back_to_bytes_; }
  // Whether texts are changed by more than U+2581 for every space and one in front.
  bool rewrites_texts() const { return rewrites_texts_; }

 private:
  void find_neighbours(const SentencePieceModel& model);
  bool are_neighbours(char32_t left, char32_t right) const;
  void encode_whole(std::string_view text, std::vector<std::int32_t>& ids) const;
  void encode_inner(std::string_view word, std::vector<std::int32_t>& ids) const;

  std::string file_, sha256_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::unique_ptr<WordCache> cache_;
  std::int64_t vocab_size_ = 0;
  std::int32_t unk_ = -1, bos_ = -1, eos_ = -1;
  std::string unk_surface_;
  bool adds_space_ = false;
  bool skips_first_space_ = false;
  bool cuts_text_ = false;
  bool joins_pairs_ = false, falls_back_to_bytes_ = false, rewrites_texts_ = false;
  std::size_t anchor_ids_ = 0;  // ids of `anchor` alone
  // Characters that stand side by side in some piece, a space for U+2581.
  std::bitset<128 * 128> ascii_neighbours_;
  std::unordered_set<std::uint64_t> neighbours_;
};

}  // namespace smoe
