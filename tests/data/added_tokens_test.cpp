// Directories that add tokens to their tokenizer.model.
#include "data/text/added_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_files.h"
#include "tests/data/added_tokens_fixture.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using namespace test;
using Tokens = std::vector<std::int32_t>;

Tokens joined(std::initializer_list<Tokens> parts) {
  Tokens all;
  for (const Tokens& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST_F(AddedTokensDirectory, AddedTokensAreReadFromTextsAndEndThem) {
  const auto tokenizer = chat();
  const auto& model = small_tokenizer();
  EXPECT_EQ(tokenizer->vocab_size(), 602);
  EXPECT_EQ(tokenizer->eos(), im_end);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->unk(), 0);
  EXPECT_EQ(tokenizer->encode("<|im_start|>ka\nto<|im_end|>\n<|im_start|>mi"),
            joined({{im_start}, model.encode("ka\nto"), {im_end}, model.encode("\n"), {im_start}, model.encode("mi")}));
  EXPECT_EQ(tokenizer->encode("ka <|im_end|"), model.encode("ka <|im_end|"));
  EXPECT_EQ(tokenizer->encode(""), Tokens{});
}

TEST_F(AddedTokensDirectory, UnkBosAndEosOfTheModelAreNotReadFromTexts) {
  const auto tokenizer = chat();
  EXPECT_EQ(tokenizer->encode("<s> ka</s> <unk>"), small_tokenizer().encode("<s> ka</s> <unk>"));
}

TEST_F(AddedTokensDirectory, WithoutLegacyOnlyTheTextsOpeningGetsASpace) {
  const auto tokenizer = with_config(config_of(chat_tokens, "\"legacy\": false"));
  const auto& model = small_tokenizer();
  const auto inside = [&](const std::string& text) {
    Tokens ids;
    model.encode_part(text, false, ids);
    return ids;
  };
  EXPECT_EQ(tokenizer->encode("ka<|im_end|>to"), joined({model.encode("ka"), {im_end}, inside("to")}));
  EXPECT_EQ(tokenizer->encode("<|im_start|>ka"), joined({{im_start}, inside("ka")}));
  EXPECT_EQ(tokenizer->encode(" ka"), model.encode("ka")) << "a space that is there is the one in front";
  EXPECT_NE(inside("ka"), model.encode("ka"));
}

TEST_F(AddedTokensDirectory, DecodingGivesTheTextBackAndSpecialTokensAreSilent) {
  const std::string tokens = chat_tokens + ", " + entry(602, "<tool>", "");
  for (const bool legacy : {true, false}) {
    const auto tokenizer = with_config(config_of(tokens, legacy ? "\"legacy\": true" : "\"legacy\": false"));
    const auto again = [&](const std::string& text) { return tokenizer->decode(tokenizer->encode(text)); };
    EXPECT_EQ(again("ka<tool>to <tool> mi<tool><tool> \n"), "ka<tool>to <tool> mi<tool><tool> \n");
    EXPECT_EQ(again("<tool> ka"), "<tool> ka");
    EXPECT_EQ(again("ka<|im_end|>\n<|im_start|> to"), "ka\n to");
    EXPECT_EQ(tokenizer->decode(Tokens{3 + 0xC3, 602}), "\uFFFD<tool>");
    EXPECT_TRUE(tokenizer->is_control(im_end));
    EXPECT_FALSE(tokenizer->is_control(602));
    expect_refused([&] { tokenizer->decode(Tokens{603}); }, {"603", "vocabulary of 603"});
  }
}

// Texts in which added tokens, their pieces and white space stand wherever they may.
std::string text_with_tokens(std::mt19937& random, int parts) {
  static const std::vector<std::string> choices = {"<|im_end|>",
                                                   "<|im_start|>",
                                                   "<m>",
                                                   "<mask>",
                                                   "<mas",
                                                   "[/I]",
                                                   " ",
                                                   "  ",
                                                   "\n",
                                                   "ka",
                                                   "strom",
                                                   "to mi",
                                                   "1",
                                                   "日本",
                                                   "\u3000",
                                                   "\xFF",
                                                   "\xE3\x80",
                                                   "<",
                                                   "k",
                                                   ".",
                                                   std::string(30, ' '),
                                                   "\n\u3000\u2003\t\u3000\u3000\u3000 \u00A0\n"};
  std::string text;
  for (int i = 0; i < parts; ++i) text += choices[random() % choices.size()];
  return text;
}

TEST_F(AddedTokensDirectory, TextsCutIntoPartsGetTheSameIds) {
  const std::string tokens = chat_tokens + ", " + entry(602, "<m>", "\"lstrip\": true") + ", " +
                             entry(603, "<mask>", "\"rstrip\": true") + ", " +
                             entry(604, "[/I]", "\"lstrip\": true, \"rstrip\": true");
  std::size_t cuts = 0;
  for (const char* legacy : {"true", "false"}) {
    const auto strips = with_config(config_of(tokens, std::string("\"legacy\": ") + legacy));
    const auto plain = with_config(config_of(chat_tokens, std::string("\"legacy\": ") + legacy));
    std::mt19937 random(4);
    const auto bare = with_config(config_of(restated, std::string("\"eos_token\": \"</s>\", \"legacy\": ") + legacy));
    for (int i = 0; i < 3000; ++i) {
      const std::string text = text_with_tokens(random, 1 + static_cast<int>(random() % 14));
      for (const auto* tokenizer : {strips.get(), plain.get(), bare.get()}) {
        const Tokens whole = tokenizer->encode(text);
        Tokens ids;
        std::string_view rest = text;
        const std::size_t least = 1 + random() % 9;
        while (!rest.empty()) {
          const std::size_t end = tokenizer->next_cut(rest, least);
          ASSERT_GT(end, 0u);
          cuts += end < rest.size();
          tokenizer->encode_part(rest.substr(0, end), rest.size() == text.size(), ids);
          rest.remove_prefix(end);
        }
        ASSERT_EQ(ids, whole) << text;
      }
    }
  }
  EXPECT_GT(cuts, 1000u);
}

TEST_F(AddedTokensDirectory, AConfigurationThatOnlyRepeatsTheModelChangesNothing) {
  const std::string bare = sha256_file(small_model_file());
  EXPECT_EQ(load()->sha256(), bare);
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, bare);
  for (const char* more :
       {"\"legacy\": true, \"eos_token\": \"</s>\"", "\"pad_token\": null, \"eos_token\": {\"content\": \"</s>\"}",
        "\"additional_special_tokens\": [\"<s>\", \"</s>\"], \"pad_token\": \"<unk>\""}) {
    const auto tokenizer = with_config(config_of(restated, more));
    EXPECT_EQ(tokenizer->sha256(), bare) << more;
    EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, bare);
    EXPECT_EQ(tokenizer->vocab_size(), 600);
    EXPECT_EQ(tokenizer->encode("<s> ka"), small_tokenizer().encode("<s> ka"));
  }
  EXPECT_EQ(load_tokenizer((directory_ / "tokenizer.model").string())->sha256(), bare);
}

// A directory that adds no token may still say where the space goes, and texts then get other ids than from the model.
TEST_F(AddedTokensDirectory, WhereTheSpaceGoesCountsWithoutAddedTokensToo) {
  const auto& model = small_tokenizer();
  const auto as_said = [&](const Tokenizer& tokenizer, bool space_behind_eos) {
    EXPECT_EQ(tokenizer.encode(" ka"), model.encode("ka"));
    EXPECT_EQ(tokenizer.encode("ka to"), model.encode("ka to"));
    Tokens behind, inside;
    tokenizer.encode_literal("\n", TextPlace::after_token, {}, behind);
    model.encode_part("\n", space_behind_eos, inside);
    EXPECT_EQ(behind, inside);
    EXPECT_EQ(tokenizer.vocab_size(), 600);
    EXPECT_NE(tokenizer.sha256(), model.sha256());
    EXPECT_EQ(tokenizer.sha256(), tokenizer_identity(directory_.path()).sha256);
  };
  ASSERT_NE(model.encode(" ka"), model.encode("ka"));
  as_said(*with_config(config_of(restated, "\"legacy\": false, \"eos_token\": \"</s>\"")), false);
  std::filesystem::remove(directory_ / "tokenizer_config.json");
  for (const char* scheme : {"first", "always"}) {
    spill(directory_ / "tokenizer.json",
          std::string(R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": ")") + scheme + R"("}})");
    as_said(*load(), std::string_view(scheme) == "always");
  }
}

TEST_F(AddedTokensDirectory, WhateverChangesTheIdsChangesTheIdentity) {
  std::vector<std::string> seen{sha256_file(small_model_file())};
  const auto is_new = [&](const std::string& config) {
    const std::string hash = with_config(config)->sha256();
    EXPECT_EQ(hash, tokenizer_identity(directory_.path()).sha256);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), hash), 0) << config;
    seen.push_back(hash);
  };
  is_new(config_of(chat_tokens));
  is_new(config_of(chat_tokens, "\"legacy\": false, \"eos_token\": \"<|im_end|>\""));
  is_new(config_of(chat_tokens, "\"eos_token\": \"</s>\""));
  is_new(config_of(restated + ", " + entry(600, "<|im_start|>") + ", " + entry(601, "<|im_end|>")));
  is_new(config_of(restated + ", " + entry(600, "<|im_end|>", "\"lstrip\": true") + ", " + entry(601, "<|im_start|>")));
  is_new(config_of(restated + ", " + entry(600, "<|im_end|>")));
  is_new(config_of(restated, "\"eos_token\": \"<s>\""));
  is_new(config_of(restated, "\"legacy\": false, \"eos_token\": \"<s>\""));
  is_new(config_of(restated, "\"legacy\": false, \"eos_token\": \"</s>\""));
  // The same tokens under other keys are the same tokenizer.
  EXPECT_EQ(
      with_config(config_of(chat_tokens, "\"eos_token\": {\"content\": \"<|im_end|>\"}, \"chat_template\": \"x\""))
          ->sha256(),
      seen[1]);
}

TEST_F(AddedTokensDirectory, OlderFilesCountWhereTheConfigurationListsNoTokens) {
  const std::string identity = chat()->sha256();
  std::filesystem::remove(directory_ / "tokenizer_config.json");
  spill(directory_ / "added_tokens.json", R"({"<|im_end|>": 600, "<|im_start|>": 601})");
  EXPECT_FALSE(load()->is_control(im_end));
  EXPECT_EQ(load()->eos(), 2);
  spill(
      directory_ / "special_tokens_map.json",
      R"({"eos_token": {"content": "<|im_end|>", "single_word": false}, "additional_special_tokens": ["<|im_start|>"]})");
  EXPECT_EQ(load()->sha256(), identity);
  EXPECT_EQ(load()->eos(), im_end);
  EXPECT_TRUE(load()->is_control(im_end));
  EXPECT_TRUE(load()->is_control(im_start));
  std::filesystem::remove(directory_ / "added_tokens.json");
  spill(directory_ / "tokenizer.json", R"({"added_tokens": [{"id": 1, "content": "<s>", "special": true},
    {"id": 600, "content": "<|im_end|>", "special": true}, {"id": 601, "content": "<|im_start|>", "special": true}]})");
  EXPECT_EQ(load()->sha256(), identity);
}

// transformers 5 writes neither the tokens nor `legacy` anywhere else.
TEST_F(AddedTokensDirectory, ATokenizerJsonSaysWhereTheSpaceGoes) {
  const auto& model = small_tokenizer();
  const auto inside = [&](const std::string& text) {
    Tokens ids;
    model.encode_part(text, false, ids);
    return ids;
  };
  const auto with_json = [&](const std::string& steps) {
    spill(directory_ / "tokenizer.json",
          "{" + steps + R"("added_tokens": [{"id": 600, "content": "<|im_end|>", "special": true}]})");
    return with_config("{\"legacy\": " + std::string(steps.find("first") == std::string::npos ? "false" : "true") +
                       "}");  // not what counts
  };
  const std::string metaspace =
      R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}, )";
  const std::string first =
      R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "prepend_scheme": "first"}]}, )";
  for (
      const std::string& steps :
      {std::string(
           R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace"}]}, )"),
       R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "\\A▁"}, "content": "▁▁"}]}, )" +
           metaspace}) {
    const auto tokenizer = with_json(steps);
    EXPECT_EQ(tokenizer->encode("ka<|im_end|>to<|im_end|> mi"),
              joined({model.encode("ka"), {im_end}, model.encode("to"), {im_end}, model.encode(" mi")}));
  }
  EXPECT_EQ(with_json(metaspace)->encode("ka<|im_end|>to<|im_end|> mi"),
            joined({model.encode("ka"), {im_end}, model.encode("to"), {im_end}, inside(" mi")}));
  EXPECT_EQ(with_json(first)->encode("ka<|im_end|>to<|im_end|> mi"),
            joined({model.encode("ka"), {im_end}, inside("to"), {im_end}, inside(" mi")}));
  EXPECT_EQ(with_json(first)->encode(" ka"), model.encode("ka"));
  expect_refused([&] { with_json(R"("pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}, )"); },
                 {"tokenizer.json", "prepend_scheme", "never"});
}

TEST_F(AddedTokensDirectory, ATokenOfTheModelMayBeAnAddedOne) {
  // "[INST]" of the v3 vocabularies: a control piece that no text encodes to, until the directory lists it.
  const std::string pieces = "\xE2\x96\x81";
  std::string model = model_of({pieces, "a"});
  model = ProtobufText()
              .bytes(1, ProtobufText().bytes(1, "<unk>").number(3, 2).text())
              .bytes(1, ProtobufText().bytes(1, "<s>").number(3, 3).text())
              .bytes(1, ProtobufText().bytes(1, "</s>").number(3, 3).text())
              .bytes(1, ProtobufText().bytes(1, "[INST]").number(3, 3).text())
              .bytes(1, ProtobufText().bytes(1, "[control_1]").number(3, 3).text())
              .text() +
          model.substr(ProtobufText().bytes(1, ProtobufText().bytes(1, "<unk>").number(3, 2).text()).text().size() +
                       ProtobufText().bytes(1, ProtobufText().bytes(1, "<s>").number(3, 3).text()).text().size() +
                       ProtobufText().bytes(1, ProtobufText().bytes(1, "</s>").number(3, 3).text()).text().size());
  spill(directory_ / "tokenizer.model", model);
  EXPECT_EQ(load()->vocab_size(), 263);
  const auto tokenizer =
      with_config(config_of(restated + ", " + entry(3, "[INST]") + ", " + entry(4, "<|user|>"), "\"legacy\": true"));
  EXPECT_EQ(tokenizer->vocab_size(), 263);
  EXPECT_EQ(tokenizer->encode("[INST]a<|user|>"), (Tokens{3, 261, 262, 4}));
}

TEST_F(AddedTokensDirectory, ItsFilesTravelWithTheTokenizer) {
  spill(directory_ / "chat_template.jinja", "{{ messages }}");
  spill(directory_ / "README.md", "not of the tokenizer");
  const auto tokenizer = chat();
  ASSERT_EQ(tokenizer->files().size(), 3u);
  for (const TokenizerFile& file : tokenizer->files())
    EXPECT_EQ(file.bytes, slurp(directory_ / file.name)) << file.name;
  const auto alone = load_tokenizer(small_model_file());
  ASSERT_EQ(alone->files().size(), 1u);
  EXPECT_EQ(alone->files()[0], (TokenizerFile{"tokenizer.model", slurp(small_model_file())}));
  EXPECT_TRUE(load_tokenizer("bytes")->files().empty());
}

// transformers takes the key's absence for true.
TEST_F(AddedTokensDirectory, LegacyOfNullIsFalse) {
  const std::string eos = ", \"eos_token\": \"</s>\"";
  const std::string of_null = with_config(config_of(chat_tokens, "\"legacy\": null" + eos))->sha256();
  EXPECT_EQ(of_null, with_config(config_of(chat_tokens, "\"legacy\": false" + eos))->sha256());
  EXPECT_NE(of_null, with_config(config_of(chat_tokens, "\"eos_token\": \"</s>\""))->sha256());
  EXPECT_EQ(with_config(config_of(chat_tokens, "\"legacy\": true" + eos))->sha256(),
            with_config(config_of(chat_tokens, "\"eos_token\": \"</s>\""))->sha256());
}

TEST_F(AddedTokensDirectory, AnAbsentLegacyIsWarnedOfWhereItMatters) {
  const std::string eos = "\"eos_token\": \"</s>\"";
  EXPECT_TRUE(load()->warnings().empty()) << "a tokenizer.model alone";
  for (const std::string& tokens : {restated, chat_tokens}) {
    const auto tokenizer = with_config(config_of(tokens, eos));
    ASSERT_EQ(tokenizer->warnings().size(), 1u);
    EXPECT_TRUE(mentions(tokenizer->warnings()[0], {"tokenizer_config.json", "legacy", "transformers 5"}));
    EXPECT_TRUE(with_config(config_of(tokens, eos + ", \"legacy\": true"))->warnings().empty());
    EXPECT_TRUE(with_config(config_of(tokens, eos + ", \"legacy\": null"))->warnings().empty());
  }
  spill(directory_ / "tokenizer.json", R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}})");
  EXPECT_TRUE(with_config(config_of(restated, eos))->warnings().empty()) << "the steps say it";
}

// A tokenizer.json as transformers makes it of the tokenizer.model, with one added token, and what may be wrong in it.
TEST_F(AddedTokensDirectory, ATokenizerThatIsNotReadIsLikeNoOther) {
  const std::string bare = tokenizer_identity(directory_.path()).sha256;
  std::filesystem::remove(directory_ / "tokenizer.model");
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, "");
  spill(directory_ / "vocab.json", "{}");
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, sha256_file(directory_ / "vocab.json"));
  expect_refused([&] { load(); }, {"vocab.json", "is not read", "tokenizer.model"});
  spill(directory_ / "tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})");
  EXPECT_EQ(tokenizer_identity(directory_.path()).sha256, sha256_file(directory_ / "tokenizer.json"));
  EXPECT_EQ(tokenizer_identity(directory_.path()).unread, directory_ / "tokenizer.json");
  expect_refused([&] { load(); }, {"tokenizer.json", "type: found \"WordPiece\""});
  EXPECT_NE(tokenizer_identity(directory_.path()).sha256, bare);
}

class AddedTokensBadInput : public AddedTokensDirectory {
 protected:
  void refused(const std::string& config, std::initializer_list<std::string_view> pieces) const {
    expect_refused([&] { with_config(config); }, pieces);
  }
};

TEST_F(AddedTokensBadInput, WhatWouldBeEncodedDifferentlyIsRefusedByName) {
  refused(config_of(restated + ", " + entry(600, "x", "\"single_word\": true"), "\"legacy\": true"),
          {"tokenizer_config.json", "600", "single_word"});
  refused(config_of(restated, "\"add_prefix_space\": false"), {"tokenizer_config.json", "add_prefix_space"});
  refused(config_of(restated, "\"sp_model_kwargs\": {\"enable_sampling\": true}"),
          {"sp_model_kwargs", "enable_sampling"});
  refused(config_of(restated, "\"split_special_tokens\": true"), {"tokenizer_config.json", "split_special_tokens"});
  EXPECT_NO_THROW(with_config(config_of(restated, "\"split_special_tokens\": false")));
  for (const char* content : {"▁", "<▁x>"})
    refused(config_of(restated + ", " + entry(600, content), "\"legacy\": true"), {"added token", "600", "U+2581"});
  EXPECT_NO_THROW(with_config(config_of(restated, "\"sp_model_kwargs\": {}, \"add_prefix_space\": null")));
  spill(directory_ / "tokenizer.model", model_of({"\xE2\x96\x81", "a"}, "", 1));  // unigram
  refused(config_of(restated + ", " + entry(261, "<x>"), "\"legacy\": false"),
          {"tokenizer_config.json", "legacy is false"});
  EXPECT_NO_THROW(with_config(config_of(restated + ", " + entry(261, "<x>"), "\"legacy\": true")));
  refused(config_of(restated, "\"legacy\": false"), {"tokenizer_config.json", "legacy is false"});
}

TEST_F(AddedTokensBadInput, TokensThatAreSearchedForInNormalisedTextAreRefused) {
  const auto with_json = [&](const std::string& steps, const std::string& flags) {
    spill(directory_ / "tokenizer.json", "{" + steps +
                                             R"(, "added_tokens": [{"id": 1, "content": "<s>", "normalized": true},
      {"id": 600, "content": "<tool>", )" + flags +
                                             "}]}");
    return load();
  };
  const std::string prepend =
      R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]})";
  const std::string first = R"("normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"})";
  expect_refused([&] { with_json(prepend, "\"normalized\": true"); }, {"tokenizer.json", "<tool>", "normalized"});
  expect_refused([&] { with_json(first, "\"normalized\": true, \"lstrip\": true"); },
                 {"tokenizer.json", "<tool>", "normalized"});
  EXPECT_NO_THROW(with_json(prepend, "\"normalized\": false"));
  EXPECT_NO_THROW(with_json(first, "\"normalized\": true"));
  EXPECT_NO_THROW(with_json("\"normalizer\": null", "\"normalized\": true"));
}

TEST_F(AddedTokensBadInput, TokensThatContradictTheModelOrEachOtherAreRefused) {
  refused(config_of(entry(601, "<x>"), "\"legacy\": true"), {"601", "<x>", "600 is no token", "600 pieces"});
  refused(config_of(entry(300, "<x>"), "\"legacy\": true"), {"id 300", "<x>", "tokenizer.model"});
  refused(config_of(entry(600, "<x>") + ", " + entry(601, "<x>"), "\"legacy\": true"), {"<x>", "600", "601"});
  refused(config_of(restated, "\"eos_token\": \"<|nowhere|>\""), {"eos_token", "<|nowhere|>", "no id"});
  refused(config_of(restated, "\"pad_token\": \"[PAD]\""), {"pad_token", "[PAD]", "added_tokens_decoder"});
  refused(config_of(restated, "\"additional_special_tokens\": [\"<x>\"]"), {"additional_special_tokens", "<x>"});
  spill(directory_ / "tokenizer.json", R"({"added_tokens": [{"id": 600, "content": "<y>"}]})");
  refused(config_of(entry(600, "<x>"), "\"legacy\": true"), {"tokenizer.json", "600", "<x>", "<y>"});
}

TEST_F(AddedTokensBadInput, MalformedFilesAreRefusedWithTheirNames) {
  refused("{", {"tokenizer_config.json"});
  refused("[]", {"tokenizer_config.json", "object"});
  refused(config_of("\"V\": {\"content\": \"<x>\"}", "\"legacy\": true"), {"added_tokens_decoder", "V", "id"});
  refused(config_of("\"-1\": {\"content\": \"<x>\"}", "\"legacy\": true"), {"added_tokens_decoder", "-1"});
  refused(config_of("\"600\": \"<x>\"", "\"legacy\": true"), {"added_tokens_decoder", "600", "object"});
  refused(config_of("\"600\": {\"special\": true}", "\"legacy\": true"), {"600", "content"});
  refused(config_of(entry(600, ""), "\"legacy\": true"), {"600", "content", "0 bytes"});
  refused(config_of(entry(600, std::string(1025, 'x')), "\"legacy\": true"), {"1025 bytes"});
  refused(config_of(entry(600, "<x>", "\"lstrip\": 1"), "\"legacy\": true"), {"lstrip"});
  refused(config_of(restated, "\"legacy\": \"no\""), {"legacy"});
  refused(config_of(restated, "\"eos_token\": 2"), {"eos_token"});
  std::filesystem::remove(directory_ / "tokenizer_config.json");
  spill(directory_ / "added_tokens.json", R"({"<x>": "600"})");
  expect_refused([&] { load(); }, {"added_tokens.json", "<x>"});
  spill(directory_ / "added_tokens.json", "[]");
  expect_refused([&] { load(); }, {"added_tokens.json"});
  std::filesystem::remove(directory_ / "added_tokens.json");
  spill(directory_ / "tokenizer.json", R"({"added_tokens": [{"content": "<x>"}]})");
  expect_refused([&] { load(); }, {"tokenizer.json", "id"});
}

}  // namespace
}  // namespace smoe
