// Ids of texts under tokenizers whose directory adds tokens, held to those of transformers (make_tokenizer_goldens.py).
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/text/tokenizer.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"
#include "tests/data/tokenizer_fixtures.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::spill;

class GoldenTokenizer : public testing::Test {
 protected:
  GoldenTokenizer() : golden_(read_json_file(fs::path(test::source_folder()) / "tests/goldens/added_tokens.json")) {
    spill(directory_ / "tokenizer.model",
          test::model_of(golden_.at("pieces").get<std::vector<std::string>>(), "", 2, true));
  }
  std::unique_ptr<Tokenizer> load(const Json& golden) const {
    spill(directory_ / "tokenizer_config.json", dump_json(golden.at("config")));
    fs::remove(directory_ / "tokenizer.json");
    if (Json document = golden.at("tokenizer_json"); !document.is_null()) {
      document["model"].update(golden_.at("model"));
      spill(directory_ / "tokenizer.json", dump_json(document));
    }
    return load_tokenizer(directory_.path().string());
  }

  Json golden_;
  const test::ScratchDir directory_;
};

TEST_F(GoldenTokenizer, AddedTokensAreEncodedAsTransformersDoes) {
  int compared = 0;
  for (const Json& golden : golden_.at("tokenizers")) {
    const auto tokenizer = load(golden);
    EXPECT_EQ(tokenizer->vocab_size(), golden.at("vocab_size"));
    EXPECT_EQ(tokenizer->eos(), golden.at("eos"));
    const Json& texts = golden_.at("texts");
    for (std::size_t i = 0; i < texts.size(); ++i, ++compared)
      EXPECT_EQ(tokenizer->encode(texts[i].get<std::string>()), golden.at("ids")[i].get<std::vector<std::int32_t>>())
          << golden.at("name") << ": " << texts[i];
  }
  EXPECT_GE(compared, 1000);
}

}  // namespace
}  // namespace smoe
