// Chat templates: which ids are targets, what messages cannot say, what is refused. Ids of whole conversations: goldens/golden_chat_test.cpp.
#include "data/text/chat/chat_template.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/files/json.h"
#include "data/text/text_begin.h"
#include "data/text/tokenizer.h"
#include "tests/data/added_tokens_fixture.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;
using Mask = std::vector<std::uint8_t>;
using Messages = std::vector<ChatMessage>;

// A byte-level tokenizer.json without merges: byte b is one id, and behind the 256 the tokens given.
Json letters_with(std::initializer_list<std::pair<const char*, bool>> tokens) {
  std::vector<int> order;
  for (int b = 0; b < 256; ++b)
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174) order.push_back(b);
  Json vocab = Json::object();
  const auto letter = [](int code) {
    return code < 128 ? std::string(1, static_cast<char>(code))
                      : std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  };
  int moved = 256;
  for (int b = 0; b < 256; ++b)
    vocab[letter(std::find(order.begin(), order.end(), b) != order.end() ? b : moved++)] = b;
  Json added = Json::array();
  for (const auto& [content, special] : tokens)
    added.push_back({{"id", 256 + added.size()}, {"content", content}, {"special", special}, {"normalized", false}});
  return {{"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
}

Ids bytes_of(std::string_view text) {
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

Ids joined_ids(std::initializer_list<Ids> parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Of ByteTokenizer, which begins with unk, bos and eos.
Ids byte_ids(std::string_view text) {
  Ids ids = bytes_of(text);
  for (std::int32_t& id : ids) id += 3;
  return ids;
}

class ChatDirectory : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const Json& document, const Json& config = Json()) const {
    spill(directory_ / "tokenizer.json", dump_json(document));
    if (!config.is_null()) spill(directory_ / "tokenizer_config.json", dump_json(config));
    return load_tokenizer(directory_.path().string());
  }
  std::unique_ptr<Tokenizer> chatml() const {
    return load(letters_with({{"<|im_start|>", true}, {"<|im_end|>", true}, {"<tool>", false}}));
  }
  const ScratchDir directory_;
};

TEST_F(ChatDirectory, TargetsAreAnswersAndWhatEndsThem) {
  const auto tokenizer = chatml();
  const ChatTemplate chat("chatml", *tokenizer);
  const Messages messages{{"user", "a"}, {"assistant", "bc"}, {"user", "d"}, {"assistant", "e"}};
  const Ids user = bytes_of("user\n"), assistant = bytes_of("assistant\n"), line = bytes_of("\n");
  const Ids ids = joined_ids({{256}, user, bytes_of("a"), {257}, line, {256}, assistant, bytes_of("bc"), {257}, line,
                              {256}, user, bytes_of("d"), {257}, line, {256}, assistant, bytes_of("e"),  {257}, line});
  const std::size_t first = 20, second = 44;  // where the answers begin
  Mask completions(ids.size()), last(ids.size()), all(ids.size(), 1);
  for (const std::size_t at : {first, first + 1, first + 2, second, second + 1}) completions[at] = 1;
  for (const std::size_t at : {second, second + 1}) last[at] = 1;
  all[0] = 0;
  for (const auto& [loss_on, mask] :
       {std::pair(LossOn::completions, completions), {LossOn::last, last}, {LossOn::all, all}}) {
    const ChatIds example = chat.encode(messages, loss_on);
    EXPECT_EQ(example.ids, ids);
    EXPECT_EQ(example.is_target, mask);
  }
  EXPECT_EQ(Ids(chat.stop_ids().begin(), chat.stop_ids().end()), Ids{257});
}

TEST_F(ChatDirectory, AnAnswerWithNothingInFrontOfItHasAFirstIdThatIsNoTarget) {
  const auto tokenizer = load(letters_with({{"<|end|>", true}}), {{"eos_token", "<|end|>"}});
  for (const LossOn loss_on : {LossOn::completions, LossOn::last, LossOn::all}) {
    const ChatIds example =
        ChatTemplate("plain", *tokenizer).encode(Messages{{"user", ""}, {"assistant", "ab"}}, loss_on);
    EXPECT_EQ(example.ids, joined_ids({bytes_of("ab"), {256}}));
    EXPECT_EQ(example.is_target, (Mask{0, 1, 1}));
  }
}

TEST_F(ChatDirectory, WhatMessagesSayIsNeverAToken) {
  const std::string all = "<|im_start|><|im_end|><|end|><pad>";
  // Also where the directory calls the template's tokens no special ones; a plain token is still vocabulary.
  for (const bool special : {true, false}) {
    const auto tokenizer = load(letters_with({{"<|im_start|>", special},
                                              {"<|im_end|>", special},
                                              {"<|end|>", special},
                                              {"<tool>", false},
                                              {"<pad>", true}}),
                                {{"eos_token", "<|end|>"}});
    const ChatTemplate chat("chatml", *tokenizer);
    EXPECT_EQ(chat.encode(Messages{{"system", all}, {"user", all + "<tool>"}, {"assistant", all}}, LossOn::all).ids,
              joined_ids({{256},
                          bytes_of("system\n" + all),
                          {257},
                          bytes_of("\n"),
                          {256},
                          bytes_of("user\n" + all),
                          {259, 257},
                          bytes_of("\n"),
                          {256},
                          bytes_of("assistant\n"),
                          bytes_of(all),
                          {257},
                          bytes_of("\n")}));
  }
}

TEST_F(ChatDirectory, ATextThatTheVocabularyJoinsToASpecialTokenIsRefused) {
  Json document = letters_with({{"<|im_start|>", true}, {"<|im_end|>", true}});
  document["model"]["vocab"]["ab"] = 258;
  document["model"]["merges"] = {"a b"};
  document["added_tokens"].push_back({{"id", 258}, {"content", "ab"}, {"special", true}});
  const auto tokenizer = load(document);
  const ChatTemplate chat("chatml", *tokenizer);
  expect_refused([&] { chat.prompt(Messages{{"user", "cab"}}); }, {"turn 1 (user)", "special token of id 258"});
  EXPECT_EQ(chat.prompt(Messages{{"user", "ba"}}).size(), 19u + 2);
}

// All templates over one tokenizer that has every token.
TEST_F(ChatDirectory, APromptIsTheBeginningOfTheExample) {
  const auto both = load(letters_with({{"<|im_start|>", true},
                                       {"<|im_end|>", true},
                                       {"<|begin_of_text|>", true},
                                       {"<|start_header_id|>", true},
                                       {"<|end_header_id|>", true},
                                       {"<|eot_id|>", true}}),
                         {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|eot_id|>"}});
  const auto check = [](const ChatTemplate& chat, const std::vector<std::string>& texts, bool system) {
    Messages messages;
    if (system && chat.takes_system()) messages.push_back({"system", texts[0]});
    for (std::size_t i = 1; i < texts.size(); ++i) {
      messages.push_back({i % 2 ? "user" : "assistant", texts[i] + "x"});
      if (i == 2 && !chat.takes_turns()) break;
    }
    if (messages.back().role == "user") messages.pop_back();
    // The system message of mixtral-v3 moves on; up to the last answer it is where it stays.
    const bool moves = chat.name() == "mixtral-v3" && messages.front().role == "system";
    const Ids whole = chat.encode(messages, LossOn::completions).ids;
    for (std::size_t i = moves ? messages.size() - 1 : 1; i < messages.size(); ++i) {
      if (messages[i].role != "assistant") continue;
      const Ids prompt = chat.prompt(std::span(messages).first(i));
      RC_ASSERT(prompt.size() < whole.size());
      RC_ASSERT(std::equal(prompt.begin(), prompt.end(), whole.begin()));
      const std::span<const ChatMessage> through(messages.data(), i + 1);
      const ChatIds example = moves ? chat.encode(messages, LossOn::last) : chat.encode(through, LossOn::last);
      // Targets begin right behind the prompt, and end with what stops an answer.
      RC_ASSERT(static_cast<std::size_t>(std::find(example.is_target.begin(), example.is_target.end(), 1) -
                                         example.is_target.begin()) == prompt.size());
      const auto last = std::find(example.is_target.rbegin(), example.is_target.rend(), 1);
      RC_ASSERT(example.ids[static_cast<std::size_t>(example.is_target.rend() - last - 1)] == chat.stop_ids().front());
    }
  };
  const ScratchDir model;
  spill(model / "tokenizer.model", model_of({"\xE2\x96\x81", "a",
                                             "\xE2\x96\x81"
                                             "a",
                                             "\n", "aa", "x"},
                                            "", 2, true));
  const auto v1 = load_tokenizer((model / "tokenizer.model").string());
  spill(model / "v3.model", model_of({"\xE2\x96\x81", "a",
                                      "\xE2\x96\x81"
                                      "a",
                                      "\n"},
                                     "", 2, true, {"[INST]", "[/INST]"}));
  const auto v3 = load_tokenizer((model / "v3.model").string());
  const auto texts = rc::gen::container<std::vector<std::string>>(
      rc::gen::container<std::string>(rc::gen::element('a', ' ', '\n', 'x', '<', '>', '/', 's')));
  for (const std::string_view name : ChatTemplate::names()) {
    const Tokenizer& tokenizer = name == "mixtral-v3" ? *v3 : name == "chatml" || name == "llama3" ? *both : *v1;
    const ChatTemplate chat(name, tokenizer);
    EXPECT_TRUE(rc::check(std::string(name), [&] {
      std::vector<std::string> drawn = *texts;
      if (drawn.size() < 3) drawn.resize(3);
      check(chat, drawn, *rc::gen::arbitrary<bool>());
    }));
  }
}

TEST(ChatTemplate, AlpacaWritesStanfordsTextWithAndWithoutInput) {
  const auto tokenizer = load_tokenizer("bytes");
  const ChatTemplate chat("alpaca", *tokenizer);
  const std::string with =
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
      "that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:";
  const std::string without =
      "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
      "### Instruction:\nAdd.\n\n### Response:";
  EXPECT_EQ(chat.prompt(Messages{{"user", "Add.", "1, 2"}}), joined_ids({{1}, byte_ids(with)}));
  EXPECT_EQ(chat.encode(Messages{{"user", "Add."}, {"assistant", "3"}}, LossOn::completions).ids,
            joined_ids({{1}, byte_ids(without), byte_ids("3"), {2}}));
  EXPECT_FALSE(chat.takes_turns());
}

TEST(ChatTemplate, PlainIsAPromptAndItsCompletion) {
  const auto tokenizer = load_tokenizer("bytes");
  const ChatTemplate chat("plain", *tokenizer);
  const ChatIds example = chat.encode(Messages{{"user", "ab", "c"}, {"assistant", " <s>"}}, LossOn::completions);
  EXPECT_EQ(example.ids, joined_ids({{1}, byte_ids("ab\nc <s>"), {2}}));
  EXPECT_EQ(example.is_target, (Mask{0, 0, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(chat.encode(Messages{{"user", ""}, {"assistant", "a"}}, LossOn::completions).ids, (Ids{1, 3 + 'a', 2}));
}

TEST(ChatTemplate, RolesOutOfTurnAreRefusedWithTurnAndRole) {
  const auto tokenizer = load_tokenizer("bytes");
  const ChatTemplate chat("zephyr", *tokenizer), alone("alpaca", *tokenizer);
  const ChatMessage user{"user", "a"}, assistant{"assistant", "b"}, system{"system", "c"};
  const auto refused = [](const ChatTemplate& of, const Messages& messages, const std::vector<std::string>& pieces) {
    const std::string message = message_of([&] { of.encode(messages, LossOn::all); });
    for (const std::string& piece : pieces)
      EXPECT_NE(message.find(piece), std::string::npos) << piece << " in: " << message;
  };
  refused(chat, {}, {"no message"});
  refused(chat, {user}, {"turn 1 (user)", "no answer"});
  refused(chat, {user, assistant, user}, {"turn 3 (user)", "no answer"});
  refused(chat, {user, user, assistant}, {"turn 2 (user)", "two users in a row", "answer to turn 1"});
  refused(chat, {assistant, user}, {"turn 1 (assistant)", "nothing has been asked"});
  refused(chat, {system, assistant}, {"turn 2 (assistant)", "nothing has been asked"});
  refused(chat, {user, assistant, assistant}, {"turn 3 (assistant)", "two assistants"});
  refused(chat, {user, system, assistant}, {"turn 2 (system)", "opens a conversation"});
  refused(chat, {system}, {"turn 1 (system)", "nothing follows"});
  refused(chat, {user, {"tool", "x"}, assistant},
          {"turn 2", "\"tool\"", "system, user or assistant", "calls of tools"});
  refused(chat, {{"User\x1b", "x"}, assistant}, {"turn 1", "User\\u001b"});
  refused(chat, {user, {"assistant", ""}}, {"turn 2 (assistant)", "empty"});
  refused(alone, {system, user, assistant}, {"turn 1 (system)", "alpaca has no place"});
  refused(alone, {user, assistant, user, assistant}, {"turn 3 (user)", "one question and one answer"});
  expect_refused([&] { chat.prompt(Messages{user, assistant}); }, {"turn 2 (assistant)", "ends the conversation"});
}

TEST_F(ChatDirectory, AnAnswerThatItsTemplateLeavesNothingOfIsEmpty) {
  const auto llama = load(letters_with(
      {{"<|begin_of_text|>", true}, {"<|start_header_id|>", true}, {"<|end_header_id|>", true}, {"<|eot_id|>", true}}));
  const ChatTemplate chat("llama3", *llama);
  expect_refused(
      [&] {
        chat.encode(Messages{{"user", "a"}, {"assistant", " \n"}}, LossOn::all);
      },
      {"turn 2 (assistant)", "empty"});
  EXPECT_EQ(chat.prompt(Messages{{"user", "\n a\u00A0"}}), joined_ids({{256, 257},
                                                                       bytes_of("user"),
                                                                       {258},
                                                                       bytes_of("\n\na"),
                                                                       {259, 257},
                                                                       bytes_of("assistant"),
                                                                       {258},
                                                                       bytes_of("\n\n")}));
}

TEST_F(ChatDirectory, TemplatesThatDoNotFitTheTokenizerAreRefusedByName) {
  const auto bytes = load_tokenizer("bytes");
  expect_refused([&] { ChatTemplate("chat-ml", *bytes); },
                 {"\"chat-ml\"", "mixtral-v1, mixtral-v3, chatml, llama3, zephyr, alpaca, plain"});
  expect_refused([&] { ChatTemplate("chatml", *bytes); }, {"chatml", "<|im_start|>, <|im_end|>", "directory"});
  expect_refused([&] { ChatTemplate("mixtral-v3", *bytes); }, {"mixtral-v3", "[INST]", "mixtral-v1"});
  const auto half = load(letters_with({{"<|im_start|>", true}}));
  expect_refused([&] { ChatTemplate("chatml", *half); }, {"needs <|im_end|>,"});
  for (const char* name : {"zephyr", "alpaca", "plain"})
    expect_refused([&] { ChatTemplate(name, *half); }, {name, "eos"});
  expect_refused([&] { ChatTemplate("mixtral-v1", *half); }, {"mixtral-v1", "bos"});
  Json strips = letters_with({{"<|im_start|>", true}, {"<|im_end|>", true}});
  strips["added_tokens"][1]["rstrip"] = true;
  const auto stripping = load(strips);
  expect_refused([&] { ChatTemplate("chatml", *stripping); }, {"chatml", "<|im_end|>", "rstrip"});
  const ScratchDir models;
  const std::vector<std::string> pieces{"\xE2\x96\x81", "a"};
  spill(models / "v3.model", model_of(pieces, "", 2, true, {"[INST]", "[/INST]"}));
  spill(models / "v7.model", model_of(pieces, "", 2, true, {"[INST]", "[/INST]", "[SYSTEM_PROMPT]"}));
  spill(models / "unigram.model", model_of(pieces, "", 1, true));
  const auto v3 = load_tokenizer((models / "v3.model").string()), v7 = load_tokenizer((models / "v7.model").string()),
             unigram = load_tokenizer((models / "unigram.model").string());
  expect_refused([&] { ChatTemplate("mixtral-v1", *v3); }, {"mixtral-v1", "[INST]", "id 3", "take mixtral-v3"});
  expect_refused([&] { ChatTemplate("mixtral-v3", *v7); }, {"mixtral-v3", "[SYSTEM_PROMPT]", "v7"});
  expect_refused([&] { ChatTemplate("plain", *unigram); }, {"plain", "apart", "byte pair encoding"});
  EXPECT_EQ(ChatTemplate("mixtral-v1", *unigram).prompt(Messages{{"user", "a"}}).front(), 1);
}

TEST_F(ChatDirectory, BosStandsInFrontWhereTextsBeginWithIt) {
  const auto template_of = [](const char* name, int id) {
    return Json{
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens", {{name, {{"id", name}, {"ids", {id}}, {"tokens", {name}}}}}}};
  };
  const Json level{{"type", "ByteLevel"}};
  const struct {
    const char* what;
    Json processor, config;
    bool begins;
  } cases[] = {
      {"nothing said", nullptr, {{"bos_token", "<b>"}}, false},
      {"a template", template_of("<b>", 256), {{"bos_token", "<b>"}}, true},
      {"another token", template_of("<e>", 257), {{"bos_token", "<b>"}}, false},
      {"in a sequence",
       {{"type", "Sequence"}, {"processors", {level, template_of("<b>", 256)}}},
       {{"bos_token", "<b>"}},
       true},
      {"another step", level, {{"bos_token", "<b>"}}, false},
      {"as of Roberta",
       {{"type", "RobertaProcessing"}, {"sep", {"<e>", 257}}, {"cls", {"<b>", 256}}},
       {{"bos_token", "<b>"}},
       true},
      {"the key overrules", template_of("<b>", 256), {{"bos_token", "<b>"}, {"add_bos_token", false}}, false},
      {"the key alone", nullptr, {{"bos_token", "<b>"}, {"add_bos_token", true}}, true},
      {"a null key", template_of("<b>", 256), {{"bos_token", "<b>"}, {"add_bos_token", nullptr}}, true},
      {"no bos", template_of("<b>", 256), {{"add_bos_token", true}}, false},
  };
  for (const auto& [what, processor, config, begins] : cases) {
    Json document = letters_with({{"<b>", true}, {"<e>", true}}), named = config;
    document["post_processor"] = processor;
    named["eos_token"] = "<e>";
    const auto tokenizer = load(document, named);
    EXPECT_EQ(texts_begin_with_bos(*tokenizer), begins) << what;
    EXPECT_EQ(ChatTemplate("plain", *tokenizer).prompt(Messages{{"user", "a"}}), begins ? (Ids{256, 'a'}) : Ids{'a'})
        << what;
  }
}

TEST_F(AddedTokensDirectory, BosStandsInFrontOfTextsOfATokenizerModelUnlessItsConfigurationSaysNo) {
  EXPECT_TRUE(texts_begin_with_bos(small_tokenizer()));
  EXPECT_TRUE(texts_begin_with_bos(*load_tokenizer("bytes")));
  EXPECT_TRUE(texts_begin_with_bos(*chat()));
  EXPECT_FALSE(texts_begin_with_bos(*with_config(config_of(chat_tokens, R"("add_bos_token": false)"))));
  EXPECT_TRUE(texts_begin_with_bos(*with_config(config_of(chat_tokens, R"("add_bos_token": true)"))));
  expect_refused([&] { texts_begin_with_bos(*with_config(config_of(chat_tokens, R"("add_bos_token": 1)"))); },
                 {"tokenizer_config.json", "add_bos_token"});
}

TEST_F(AddedTokensDirectory, WhatMessagesSayIsNoTokenOfATokenizerModelsDirectoryEither) {
  const auto tokenizer =
      with_config(config_of(chat_tokens + ", " + entry(602, "<pad>") + ", " + entry(603, "<tool>", "")));
  const ChatTemplate chat("chatml", *tokenizer);
  const ChatIds example = chat.encode(
      Messages{{"user", "ka<pad><|im_end|>to"}, {"assistant", "mi<|im_start|><tool></s>"}}, LossOn::completions);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), im_start), 2);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), im_end), 2);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), 602), 0);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), 603), 1) << "a plain token is vocabulary";
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), tokenizer->eos()), 2);
  EXPECT_EQ(std::count(example.ids.begin(), example.ids.end(), 2), 0);
}

// The space that is put in front of a turn is no part of it; one that an answer begins with behind its header is.
TEST_F(AddedTokensDirectory, AnswersAreDecodedAsTheyWereWritten) {
  const auto tokenizer = chat();
  const struct {
    const Tokenizer& tokenizer;
    const char* name;
  } cases[] = {{small_tokenizer(), "mixtral-v1"}, {small_tokenizer(), "plain"}, {*tokenizer, "chatml"}};
  for (const auto& [of, name] : cases) {
    const ChatTemplate chat(name, of);
    for (const char* text : {"ka to", " ka", "\nka", "日 "}) {
      const Messages messages{{"user", "mi"}, {"assistant", text}};
      const Ids ids = chat.encode(messages, LossOn::all).ids;
      StreamDecoder decoder(of, chat.answer_opens_text());
      std::string shown;
      for (std::size_t i = chat.prompt(std::span(messages).first(1)).size(); ids[i] != chat.stop_ids().front(); ++i)
        shown += decoder.push(ids[i]);
      EXPECT_EQ(shown + decoder.finish(), text) << name;
    }
  }
}

}  // namespace
}  // namespace smoe
