// Byte pair encoding as a tokenizer.json describes it: a vocabulary, and which neighbours are joined in which order (Sennrich et
// al. 2016, arXiv 1508.07909).
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/files/json.h"

namespace smoe {

class BpeModel {
 public:
  // The value under `model`. byte_level: words are spelled in GPT-2's letters for bytes. Throws std::runtime_error, by key,
  // for another type than BPE, two pieces of one id, a merge of what is no piece, and what is not supported: dropout, prefixes
  // and suffixes of words.
  BpeModel(const Json& model, const std::string& where, bool byte_level);

  // Appends the ids of a word. Of all pairs of neighbours that the merges have, the first in their list is joined, the
  // leftmost of several. A character without a piece becomes its bytes, or unk, or nothing. Thread-safe.
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids) const;

  std::int32_t vocab_size() const { return static_cast<std::int32_t>(pieces_.size()); }  // the largest id and one
  const std::string& piece(std::int32_t id) const { return pieces_[static_cast<std::size_t>(id)]; }  // "": none
  std::int32_t id_of(std::string_view piece) const;                                                  // -1: none
  std::int32_t unk() const { return unk_; }
  bool is_byte_level() const { return byte_level_; }
  // Of merges that come too late: of the first, what is wrong with the list. "" where none is.
  const std::string& out_of_order() const { return out_of_order_; }
  // The byte that an id of the fallback stands for, "<0x0A>"; -1: none.
  int byte_of(std::int32_t id) const;

  // Whether these characters stand side by side in some piece that is joined of others; where they do not, a word may be
  // cut between them.
  bool are_neighbours(char32_t left, char32_t right) const;
  // Whether a word is one piece as soon as the vocabulary has it, whatever the merges say.
  bool falls_back_to_bytes() const;  // whatever the text, nothing is unknown
  bool takes_whole_words() const { return ignore_merges_; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  struct Merge {
    std::uint64_t pair = 0;
    std::uint32_t rank = 0;
    std::int32_t id = -1;  // -1: an empty place of the table
  };

  struct JoinedPiece {
    std::int32_t left = -1, right = -1, id = -1;
  };

  void read_vocabulary(const JsonReader& model);
  void read_merges(const JsonReader& model);
  void check_order(const std::vector<JoinedPiece>& joins);
  void read_bytes(const JsonReader& model);
  void add_neighbours(std::string_view piece);
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void start_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const;
  void join_short(std::vector<std::int32_t>& symbols) const;
  void join_long(std::vector<std::int32_t>& symbols) const;
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

  std::string where_, out_of_order_;
  bool byte_level_, ignore_merges_ = false, fuse_unk_ = false;
  std::int32_t unk_ = -1;
  std::vector<std::string> pieces_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::vector<Merge> merges_;  // a hash table with open addressing; its size is a power of two
  // Of a byte: its letter's piece where words are spelled so, else its piece of the fallback; -1: none.
  std::array<std::int32_t, 256> byte_ids_;
  std::array<std::int32_t, 128> ascii_ids_;  // of a character's own piece
  bool byte_fallback_ = false;
  std::bitset<128 * 128> ascii_neighbours_;
  std::unordered_set<std::uint64_t> neighbours_;
};

}  // namespace smoe
