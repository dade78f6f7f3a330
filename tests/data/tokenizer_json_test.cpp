// What a tokenizer.json beside a tokenizer.model may say.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/tokenizer.h"
#include "tests/data/added_tokens_fixture.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using namespace test;

class TokenizerJson : public AddedTokensDirectory {
 protected:
  TokenizerJson() {
    spill(directory_ / "tokenizer.model", model_of(pieces_, "", 2, true));
    Json vocabulary = Json::object();
    const SentencePieceTokenizer model(directory_ / "tokenizer.model");
    for (std::int32_t id = 0; id < model.vocab_size(); ++id) vocabulary[model.piece(id)] = id;
    json_ = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
    json_["added_tokens"] = {{{"id", 266}, {"content", "<x>"}, {"special", true}, {"normalized", false}}};
    json_["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, replace()}}};
    json_["pre_tokenizer"] = nullptr;
    json_["model"] = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", "<unk>"},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", true},
                      {"byte_fallback", true},
                      {"ignore_merges", false}};
    json_["model"]["vocab"] = vocabulary;
    json_["model"]["merges"] = {"a b", "▁ a", "▁ ab", "▁a b"};
  }

  static Json replace() { return {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}; }
  static Json metaspace() {
    return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", false}};
  }
  void load_json(const Json& json) const {
    spill(directory_ / "tokenizer.json", dump_json(json));
    load();
  }
  // The value at a place ("/model/merges") is another one.
  void refused(const std::string& place, const Json& value, std::initializer_list<std::string_view> what) const {
    Json json = json_;
    json[Json::json_pointer(place)] = value;
    expect_refused([&] { load_json(json); }, what);
    expect_refused([&] { load_json(json); },
                   {"tokenizer.json", "transformers reads this", "remove the one that is wrong"});
  }
  void taken(const std::string& place, const Json& value) const {
    Json json = json_;
    json[Json::json_pointer(place)] = value;
    EXPECT_NO_THROW(load_json(json)) << place << " " << value;
  }

  const std::vector<std::string> pieces_ = {"ab", "▁a", "▁ab", "▁", "a", "b", "c"};  // 259 to 265, best first
  Json json_;
};

TEST_F(TokenizerJson, TheModelsOwnIsTakenInEveryFormThatIsWritten) {
  EXPECT_NO_THROW(load_json(json_));
  EXPECT_EQ(load()->vocab_size(), 267);
  taken("/model/merges", Json::array({Json::array({"a", "b"}), Json::array({"▁", "a"}), Json::array({"▁a", "b"}),
                                      Json::array({"▁", "ab"})}));
  taken("/model/unk_token", nullptr);
  taken("/model/vocab/<x>", 266);
  taken("/truncation", {{"max_length", 5}});
  Json json = json_;
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {metaspace()}}};
  EXPECT_NO_THROW(load_json(json));
  json["normalizer"] = replace();
  EXPECT_NO_THROW(load_json(json));
}

TEST_F(TokenizerJson, AnotherModelIsRefusedWithWhatDiffers) {
  Json swapped = json_["model"]["vocab"];
  std::swap(swapped["a"], swapped["b"]);
  refused("/model/vocab", swapped, {"vocab", "id 264", "\"a\"", "\"b\""});
  refused("/model/vocab/d", 267, {"vocab", "\"d\"", "267", "266 pieces"});
  Json without = json_["model"]["vocab"];
  without.erase("c");
  refused("/model/vocab", without, {"vocab", "265", "missing", "\"c\""});
  refused("/model/merges", {"a b", "▁ a", "▁ ab"}, {"merges", "\"b\"", "missing"});
  refused("/model/merges", {"▁ a", "a b", "▁ ab", "▁a b"}, {"merges", "entry 1", "\"a\" and \"b\"", "score"});
  refused("/model/merges", {"a b", "▁ a", "▁ ab", "▁a b", "a c"}, {"merges", "entry 4", "\"c\"", "does not"});
  refused("/model/merges", {"a b", "a b", "▁ a", "▁ ab", "▁a b"}, {"merges", "entry 1", "twice"});
  refused("/model/merges", {"ab"}, {"merges", "entry 0", "no pair"});
  refused("/model/byte_fallback", false, {"byte_fallback is false"});
  refused("/model/ignore_merges", true, {"ignore_merges"});
  refused("/model/dropout", 0.1, {"dropout"});
  refused("/model/end_of_word_suffix", "</w>", {"end_of_word_suffix", "</w>"});
  refused("/model/type", "WordLevel", {"WordLevel", "BPE"});
}

TEST_F(TokenizerJson, StepsThatTheModelDoesNotTakeAreRefusedByName) {
  for (const char* name : {"Strip", "Lowercase", "NFKC"}) {
    refused("/normalizer", {{"type", name}}, {"normalizer", name});
    refused("/normalizer/normalizers", {json_["normalizer"]["normalizers"][0], replace(), {{"type", name}}},
            {"normalizer", name});
  }
  for (const char* name : {"Digits", "ByteLevel"}) {
    refused("/pre_tokenizer", {{"type", name}}, {"pre_tokenizer", name});
    refused("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", name}}}}}, {"pre_tokenizer", name});
  }
  refused("/normalizer", nullptr, {"normalizer", "spaces stay spaces"});
  refused("/normalizer", replace(), {"pre_tokenizer", "no space is put in front"});
  refused("/pre_tokenizer", metaspace(), {"pre_tokenizer", "Metaspace", "Prepend"});
  Json json = json_;
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = metaspace();
  json["pre_tokenizer"]["split"] = true;
  expect_refused([&] { load_json(json); }, {"tokenizer.json", "split"});
}

}  // namespace
}  // namespace smoe
