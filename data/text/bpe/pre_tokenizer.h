// How a tokenizer.json cuts a text into words, none of which is joined with its neighbours.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/text/bpe/split_pattern.h"

namespace smoe {

// Words in the order of the text. Steps may change the text (a space in front, U+2581 for a space).
struct Words {
  std::string text;
  std::vector<TextRange> words;

  std::string_view word(std::size_t i) const { return std::string_view(text).substr(words[i].begin, words[i].size()); }
};

class PreTokenizer {
 public:
  // The value under `pre_tokenizer`, null being none; `where` names the file. Throws std::runtime_error, by name, for a step
  // other than Split, Digits, ByteLevel, Metaspace and Sequence.
  PreTokenizer(const Json& pre_tokenizer, const std::string& where);
  PreTokenizer() = default;

  // Whether words are spelled in GPT-2's letters for bytes.
  bool is_byte_level() const { return byte_level_; }
  // Whether a text is cut between a letter and a space with a letter behind it, whatever else it holds, so that what is left
  // and right of there is cut alone as together.
  bool cuts_at_spaces() const;
  // Whether a text is one word, with U+2581 for its spaces at most.
  bool never_splits() const;
  // What stands for a space in a word.
  char32_t space() const;

  // text: valid UTF-8, what stands between two added tokens, or a part of it. opens_segment: nothing of it came before;
  // opens_text: nor did an added token.
  Words cut(std::string text, bool opens_segment, bool opens_text) const;

 private:
  enum class Behavior : std::uint8_t { removed, isolated, contiguous, with_previous, with_next };
  enum class Prepend : std::uint8_t { never, first, always };
  struct Split {
    SplitPattern pattern;
    Behavior behavior = Behavior::isolated;
    bool invert = false;
    bool at_spaces = false;  // see cuts_at_spaces()
  };
  // Rewrites each word: spaces by `space`, where that is not one, and it (or a space) in front.
  struct Rewrite {
    std::string space;
    Prepend prepend;
  };
  struct Step {
    std::optional<Rewrite> rewrite = {};
    std::optional<Split> split = {};
  };

  void add(const Json& step, const std::string& where);
  void add_split(const JsonReader& step, const Json& value, const std::string& where);
  void add_metaspace(const JsonReader& step, const std::string& where);
  static void rewrite(const Rewrite& rewrite, bool opens_segment, bool opens_text, Words& words);
  static void split(const Split& split, Words& words);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace smoe
