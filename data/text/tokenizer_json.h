// The tokenizer.json of a Hugging Face directory, which transformers reads in place of the tokenizer.model beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/files/json.h"

namespace smoe {

class SentencePieceTokenizer;

// Holds a tokenizer.json that has a `model` to the tokenizer.model: the same pieces under the same ids, joined in the same
// order, of texts prepared in the same way. `added` are the directory's added tokens by id, which a vocabulary may list
// and which may give a control piece another name; `where` names the file. truncation and padding are passed over:
// transformers switches them off where a call does not ask for them. Throws std::runtime_error with the key and what
// differs.
void require_same_encoding(const Json& document, const std::string& where, const SentencePieceTokenizer& model,
                           const std::map<std::int32_t, std::string>& added);

// The two pieces that an entry of `merges` joins, written as "a b" or as ["a", "b"]; none where it is neither.
std::optional<std::pair<std::string, std::string>> read_merge(const Json& merge);

// The normaliser's and the pre-tokenizer's steps, those of sequences in their place; `document` must outlive them.
std::vector<const Json*> tokenizer_json_steps(const Json& document, const char* key);

// One more than the largest id of its vocabulary and its added tokens. Throws std::runtime_error where it is malformed.
std::int64_t vocab_size_of_tokenizer_json(const std::filesystem::path& path);

// How many ids mean something to the tokenizer of a directory, also of a tokenizer.json of a kind that is not read; 0: it has
// none that is known. A model may have rows for more.
std::int64_t vocabulary_of_directory(const std::filesystem::path& directory);

}  // namespace smoe
