// Tokens that a Hugging Face directory adds to its tokenizer.model: a fine-tuned model's "<|im_end|>" and the like, read
// from tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json as transformers reads them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/tokenizer_files.h"

namespace smoe {

class SentencePieceTokenizer;

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;                 // silent when decoded, as bos and eos are
  bool lstrip = false, rstrip = false;  // white space in front of it, or behind it, belongs to it

  bool operator==(const AddedToken&) const = default;
};

struct AddedTokens {
  std::vector<AddedToken> tokens;   // by id; those from the model's size upwards leave no id out
  std::int32_t bos = -1, eos = -1;  // as the directory names them; of the model where it names none
  // Where the space goes that SentencePiece puts in front of a text. legacy: in front of everything between two added
  // tokens; else of what opens the text alone. takes_own_space: not where a space stands there already.
  bool legacy = true, takes_own_space = false;
  // There is a tokenizer_config.json without the key `legacy`, and nothing else says it.
  bool legacy_is_absent = false;

  // Whether a text or its end gets other ids than from the model alone.
  bool changes(const SentencePieceTokenizer& model) const;
};

// `files` are the directory's, `directory` names it in messages. unk, bos and eos of the model that the files merely
// repeat are no addition, and stay ids that no text encodes to. Throws std::runtime_error, with file and key, where a
// file is malformed, contradicts the model or another file, names a token that has no id, or asks for something that
// would be encoded differently here: single_word, normalized in a tokenizer.json whose normaliser moves
// spaces, no space in front of texts, sp_model_kwargs, split_special_tokens, a content with U+2581. Where there is a
// tokenizer.json, it must encode as the model does (tokenizer_json.h), and its normaliser and pre-tokenizer say where the
// space goes, and not the key `legacy`.
AddedTokens read_added_tokens(const std::string& directory, const std::vector<TokenizerFile>& files,
                              const SentencePieceTokenizer& model);

}  // namespace smoe
