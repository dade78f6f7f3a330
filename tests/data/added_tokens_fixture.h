// Directories that add tokens to a small tokenizer.model, written by tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/scratch_dir.h"

namespace smoe::test {

inline constexpr std::int32_t im_end = 600, im_start = 601;  // small_model_file() has 600 pieces

// An entry of added_tokens_decoder.
inline std::string entry(int id, const std::string& content, const std::string& more = "\"special\": true") {
  return "\"" + std::to_string(id) + "\": {\"content\": \"" + content + "\"" + (more.empty() ? "" : ", " + more) + "}";
}

inline const std::string restated = entry(0, "<unk>") + ", " + entry(1, "<s>") + ", " + entry(2, "</s>");
inline const std::string chat_tokens = restated + ", " + entry(600, "<|im_end|>") + ", " + entry(601, "<|im_start|>");

inline std::string config_of(const std::string& tokens,
                             const std::string& more = "\"legacy\": true, \"eos_token\": \"<|im_end|>\"") {
  return "{\"tokenizer_class\": \"LlamaTokenizer\", \"bos_token\": \"<s>\", \"unk_token\": \"<unk>\", " + more +
         ", \"added_tokens_decoder\": {" + tokens + "}}";
}

class AddedTokensDirectory : public testing::Test {
 protected:
  AddedTokensDirectory() { spill(directory_ / "tokenizer.model", slurp(small_model_file())); }

  std::unique_ptr<Tokenizer> load() const { return load_tokenizer(directory_.path().string()); }
  std::unique_ptr<Tokenizer> with_config(const std::string& config) const {
    spill(directory_ / "tokenizer_config.json", config);
    return load();
  }
  std::unique_ptr<Tokenizer> chat() const { return with_config(config_of(chat_tokens)); }

  const ScratchDir directory_;
};

}  // namespace smoe::test
