// What a token id looks like, for people: the tokenizer is that of the shards, or else the model's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "trainer/corpus.h"

namespace smoe {

class TokenTexts {
 public:
  // tokenizer: null where there is none.
  explicit TokenTexts(std::unique_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}

  // Valid UTF-8 on one line: newlines and tabs are \n and \t, other control characters, and bytes that form no character by
  // themselves (a character may be several tokens), \x1b. Ids that stand for no text are <bos>, <eos>, <unk>, or as they are written, <|im_end|>; those
  // of no tokenizer, or beyond its vocabulary, <5>.
  std::string of(std::int32_t id) const;
  // "sentencepiece", "bytes"; empty where there is none.
  std::string kind() const { return tokenizer_ ? tokenizer_->name() : std::string(); }

 private:
  std::unique_ptr<const Tokenizer> tokenizer_;
};

// Throws std::runtime_error where a tokenizer is there and cannot be read.
TokenTexts texts_of(const std::vector<Source>& sources, const std::filesystem::path& model_directory);

}  // namespace smoe
