// Conversations as ids and which of them are answers, held to those of transformers and mistral-common (make_chat_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/text/chat/chat_template.h"
#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"

namespace smoe {
namespace {

using test::spill;
using Ids = std::vector<std::int32_t>;
using Mask = std::vector<std::uint8_t>;

class GoldenChat : public testing::Test {
 protected:
  static const Json& golden() {
    static const Json read =
        read_json_file(std::filesystem::path(test::source_folder()) / "tests/goldens/chat_templates.json");
    return read;
  }
  static std::vector<ChatMessage> messages_of(const Json& conversation) {
    std::vector<ChatMessage> messages;
    for (const Json& message : conversation)
      messages.push_back({message.at("role"), message.at("content"), message.value("input", "")});
    return messages;
  }
  std::unique_ptr<Tokenizer> model(const std::string& name) const {
    const Json& model = golden().at("models").at(name);
    spill(directory_ / "tokenizer.model", test::model_of(model.at("pieces").get<std::vector<std::string>>(), "", 2,
                                                         true, model.at("controls").get<std::vector<std::string>>()));
    return load_tokenizer((directory_ / "tokenizer.model").string());
  }
  std::unique_ptr<Tokenizer> tokenizer(const std::string& name) const {
    const Json& of = golden().at("tokenizers").at(name);
    std::filesystem::remove(directory_ / "tokenizer.json");
    std::filesystem::remove(directory_ / "tokenizer.model");
    if (of.contains("model"))
      model(of.at("model"));
    else
      spill(directory_ / "tokenizer.json", dump_json(of.at("json")));
    spill(directory_ / "tokenizer_config.json", dump_json(of.at("config")));
    return load_tokenizer(directory_.path().string());
  }
  static void expect_conversation(const ChatTemplate& chat, const std::vector<ChatMessage>& messages,
                                  const Json& expected) {
    const ChatIds found = chat.encode(messages, LossOn::completions);
    EXPECT_EQ(found.ids, expected.at("ids").get<Ids>());
    EXPECT_EQ(found.is_target, expected.at("mask").get<Mask>());
    if (expected.contains("prompt")) {
      EXPECT_EQ(chat.prompt(std::span(messages).first(messages.size() - 1)), expected.at("prompt").get<Ids>());
    }
  }

  const test::ScratchDir directory_;
};

TEST_F(GoldenChat, ConversationsAreThoseOfTransformers) {
  int compared = 0;
  for (const Json& of : golden().at("cases")) {
    const auto loaded = tokenizer(of.at("tokenizer"));
    const ChatTemplate chat(of.at("template").get<std::string>(), *loaded);
    for (const Json& expected : of.at("conversations")) {
      const Json& conversation = golden().at("conversations")[expected.at("of").get<std::size_t>()];
      SCOPED_TRACE(dump_json(of.at("template")) + " " + dump_json(of.at("tokenizer")) + " " + dump_json(conversation));
      expect_conversation(chat, messages_of(conversation), expected);
      ++compared;
    }
  }
  EXPECT_GE(compared, 80);
}

std::vector<const Json*> conversations_for_mistral(const Json& golden) {
  std::vector<const Json*> all;
  for (const char* list : {"conversations", "spelled"})
    for (const Json& conversation : golden.at(list)) all.push_back(&conversation);
  return all;
}

TEST_F(GoldenChat, ConversationsAreThoseOfMistralCommon) {
  for (const Json& of : golden().at("mistral")) {
    const auto loaded = model(of.at("model"));
    const ChatTemplate chat(of.at("template").get<std::string>(), *loaded);
    const auto conversations = conversations_for_mistral(golden());
    ASSERT_EQ(conversations.size(), of.at("conversations").size());
    for (std::size_t i = 0; i < conversations.size(); ++i) {
      SCOPED_TRACE(dump_json(of.at("template")) + " " + dump_json(*conversations[i]));
      expect_conversation(chat, messages_of(*conversations[i]), of.at("conversations")[i]);
    }
  }
}

// Of the released vocabularies; a, b, c, d is the example of Mistral's own documentation.
TEST_F(GoldenChat, ConversationsOfTheReleasedVocabulariesAreThoseOfMistralCommon) {
  int compared = 0;
  for (const Json& of : golden().at("real")) {
    const std::string name = of.at("template");
    const auto file = name == "mixtral-v1" ? test::mixtral_model_file() : test::mixtral_v3_model_file();
    if (file.empty()) continue;
    ++compared;
    const auto loaded = load_tokenizer(file.string());
    ASSERT_EQ(loaded->sha256(), of.at("sha256"));
    const ChatTemplate chat(name, *loaded);
    expect_conversation(chat, {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}}, of.at("abcd"));
    if (name == "mixtral-v1") {
      const Ids documented{1,   733,   16289, 28793, 264, 733,   28748, 16289, 28793, 287, 2,
                           733, 16289, 28793, 277,   733, 28748, 16289, 28793, 281,   2};
      EXPECT_EQ(of.at("abcd").at("ids").get<Ids>(), documented);
    }
    const auto conversations = conversations_for_mistral(golden());
    for (std::size_t i = 0; i < conversations.size(); ++i) {
      SCOPED_TRACE(name + " " + dump_json(*conversations[i]));
      expect_conversation(chat, messages_of(*conversations[i]), of.at("conversations")[i]);
    }
  }
  if (compared == 0)
    GTEST_SKIP()
        << "no Mixtral tokenizer here: run tests/data/fetch_mixtral_tokenizer.sh build/fixtures, or name the files "
           "in SMOE_MIXTRAL_TOKENIZER and SMOE_MIXTRAL_V3_TOKENIZER";
}

// Where an answer begins with white space, transformers, which tokenizes the whole text, may join it with the line's end in
// front of it. A model is never asked behind such ids: its prompt ends with the line's end alone. So here the answer is
// encoded apart from its header, and what is then another id says the same text.
TEST_F(GoldenChat, AnAnswerThatBeginsWithWhiteSpaceIsStillBehindItsPrompt) {
  int differing = 0;
  for (const Json& of : golden().at("cases_of_white_space")) {
    const auto loaded = tokenizer(of.at("tokenizer"));
    const ChatTemplate chat(of.at("template").get<std::string>(), *loaded);
    for (const Json& theirs : of.at("conversations")) {
      const auto messages = messages_of(golden().at("white")[theirs.at("of").get<std::size_t>()]);
      const Ids ours = chat.encode(messages, LossOn::last).ids, their_ids = theirs.at("ids").get<Ids>();
      const Ids prompt = chat.prompt(std::span(messages).first(messages.size() - 1));
      ASSERT_LE(prompt.size(), ours.size());
      EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), ours.begin()));
      if (messages.size() == 2) {  // with no answer in it, nothing is encoded apart
        EXPECT_EQ(prompt, theirs.at("prompt").get<Ids>());
      }
      EXPECT_EQ(loaded->decode(ours), loaded->decode(their_ids));
      differing += ours != their_ids;
    }
  }
  EXPECT_GE(differing, 1) << "or the explanation in docs/formats.md explains nothing";
}

}  // namespace
}  // namespace smoe
