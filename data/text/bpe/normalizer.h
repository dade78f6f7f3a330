// What a tokenizer.json does to a text before it is cut into words: Unicode's normal forms, replacements, a space in front.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/text/bpe/split_pattern.h"

namespace smoe {

class Normalizer {
 public:
  // The value under `normalizer`, null being none; `where` names the file. Throws std::runtime_error, by name, for a step other
  // than NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence.
  Normalizer(const Json& normalizer, const std::string& where);
  Normalizer() = default;

  bool changes_nothing() const { return steps_.empty(); }
  // Whether two halves of a text, normalised alone, join to the normalised text where the cut is between a letter and a
  // space: all steps but Prepend, which looks at a text's beginning, and replacements.
  bool is_local() const;
  // Whether it puts something in front of a text, or another character in place of each space, and nothing else.
  bool only_moves_spaces() const;
  char32_t space() const { return space_; }  // what then stands for a space

  // text: valid UTF-8. opens: nothing of it came before; else nothing is put in front.
  std::string apply(std::string_view text, bool opens) const;

 private:
  enum class Kind : std::uint8_t { nfc, nfd, nfkc, nfkd, prepend, replace };
  struct Step {
    Kind kind;
    std::string text = {};  // prepended, or put in place
    std::optional<SplitPattern> pattern = {};
  };
  void add(const Json& step, const std::string& where);

  std::vector<Step> steps_;
  char32_t space_ = U' ';  // what a space is replaced by
};

}  // namespace smoe
