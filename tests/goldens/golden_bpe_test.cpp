// Ids of texts under tokenizer.json files, held to those of the Python package tokenizers (make_bpe_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/files/utf8.h"
#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"

namespace smoe {
namespace {

using test::spill;

class GoldenBpe : public testing::Test {
 protected:
  static const Json& golden() {
    static const Json read =
        read_json_file(std::filesystem::path(test::source_folder()) / "tests/goldens/bpe_tokenizers.json");
    return read;
  }
  std::unique_ptr<Tokenizer> load(const Json& of) const {
    spill(directory_ / "tokenizer.json", dump_json(of.at("tokenizer_json")));
    return load_tokenizer(directory_.path().string());
  }

  const test::ScratchDir directory_;
};

TEST_F(GoldenBpe, TextsAreEncodedAsTokenizersDoes) {
  int compared = 0;
  for (const Json& of : golden().at("tokenizers")) {
    const auto tokenizer = load(of);
    const Json& texts = golden().at("texts");
    for (std::size_t i = 0; i < texts.size(); ++i, ++compared)
      EXPECT_EQ(tokenizer->encode(texts[i].get<std::string>()), of.at("ids")[i].get<std::vector<std::int32_t>>())
          << of.at("name") << ": " << texts[i];
  }
  EXPECT_GE(compared, 7000);
}

// However a text is cut for several threads, and where it is cut at all.
TEST_F(GoldenBpe, PartsEncodeToTheIdsOfTheWhole) {
  for (const Json& of : golden().at("tokenizers")) {
    const auto tokenizer = load(of);
    std::string whole;
    for (const Json& text : golden().at("texts")) whole += text.get<std::string>();
    const std::vector<std::int32_t> expected = tokenizer->encode(whole);
    for (const std::size_t step : {1u, 7u, 1000u}) {
      std::vector<std::int32_t> ids;
      std::string_view rest = whole;
      int parts = 0;
      for (; !rest.empty(); ++parts) {
        const std::size_t cut = tokenizer->next_cut(rest, step);
        ASSERT_GE(cut, std::min(step, rest.size()));
        tokenizer->encode_part(rest.substr(0, cut), parts == 0, ids);
        rest.remove_prefix(cut);
      }
      EXPECT_EQ(ids, expected) << of.at("name") << " in steps of " << step;
      const std::string name = of.at("name");
      const bool cuts = name.starts_with("gpt2") || name.starts_with("llama3") || name.starts_with("qwen") ||
                        name.starts_with("smollm") || name.starts_with("mixtral");
      if (cuts) {
        EXPECT_GT(parts, 5) << name;
      }
    }
  }
}

// Byte-level vocabularies lose nothing; a stream of ids never shows half a character.
TEST_F(GoldenBpe, DecodingGivesTheTextBack) {
  int compared = 0;
  for (const Json& of : golden().at("tokenizers")) {
    const std::string name = of.at("name");
    const bool exact = name == "gpt2" || name == "llama3" || name == "gpt4o" || name == "deepseek" || name == "mixtral";
    const auto tokenizer = load(of);
    for (const Json& entry : golden().at("texts")) {
      const auto text = entry.get<std::string>();
      const std::vector<std::int32_t> ids = tokenizer->encode(text);
      StreamDecoder decoder(*tokenizer);
      std::string streamed;
      for (const std::int32_t id : ids) {
        const std::string shown = decoder.push(id);
        EXPECT_TRUE(is_valid_utf8(shown));
        streamed += shown;
      }
      streamed += decoder.finish();
      EXPECT_EQ(streamed, tokenizer->decode(ids));
      // Special tokens are silent, and U+2581 is a space to a vocabulary that writes spaces so.
      if (!exact || text.find("<|") != std::string::npos || text.find("<s>") != std::string::npos ||
          text.find("</s>") != std::string::npos || text.find("<unk>") != std::string::npos ||
          (name == "mixtral" && text.find("\xE2\x96\x81") != std::string::npos))
        continue;
      EXPECT_EQ(streamed, text) << name;
      ++compared;
    }
  }
  EXPECT_GE(compared, 1000);
}

}  // namespace
}  // namespace smoe
