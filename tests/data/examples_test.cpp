// Examples of every schema as messages, and what is none.
#include "data/import/examples.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/message_of.h"

namespace smoe {
namespace {

using test::mentions;
using test::message_of;

Example read_example_at_7(const std::string& text) { return read_example(parse_json(text, "f"), "f:7:1"); }
void refuses_example(const std::string& text, std::initializer_list<std::string_view> words) {
  const std::string message = message_of([&] { read_example_at_7(text); });
  EXPECT_TRUE(mentions(message, {"f:7:1"})) << text;
  EXPECT_TRUE(mentions(message, words)) << text;
}

TEST(Examples, EverySchemaIsMessages) {
  const std::vector<ChatMessage> expected{{.role = "user", .content = "q", .is_target = false},
                                          {.role = "assistant", .content = "a"}};
  for (const auto& [schema, text] : std::vector<std::pair<ExampleSchema, std::string>>{
           {ExampleSchema::messages,
            R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"},
           {ExampleSchema::prompt_completion, R"({"prompt": "q", "completion": "a"})"},
           {ExampleSchema::prompt_completion,
            R"({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]})"},
           {ExampleSchema::sharegpt,
            R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})"},
           {ExampleSchema::alpaca, R"({"instruction": "q", "input": "", "output": "a"})"}}) {
    const Example example = read_example_at_7(text);
    EXPECT_EQ(example.schema, schema) << text;
    EXPECT_EQ(example.messages, expected) << text;
  }
}

TEST(Examples, SystemAndInputHaveTheirPlaces) {
  const Example alpaca = read_example_at_7(R"({"instruction": "q", "input": "i", "output": "a", "system": "s"})");
  EXPECT_EQ(alpaca.messages,
            (std::vector<ChatMessage>{{.role = "system", .content = "s", .is_target = false},
                                      {.role = "user", .content = "q", .input = "i", .is_target = false},
                                      {.role = "assistant", .content = "a"}}));
  const Example shared =
      read_example_at_7(R"({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "q"},
                                                    {"from": "assistant", "value": "a"}]})");
  EXPECT_EQ(shared.messages[0].role, "system");
  EXPECT_EQ(shared.messages[2].role, "assistant");
}

TEST(Examples, ASystemMessageBesideTheTurnsIsTheirs) {
  const std::string turns = R"("messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])";
  for (const std::string& rest :
       {turns, std::string(R"("prompt": "q", "completion": "a")"), std::string(R"("instruction": "q", "output": "a")"),
        std::string(R"("conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])")})
    for (const std::string key : {"system", "system_prompt"}) {
      const auto messages = read_example_at_7("{\"" + key + "\": \"s\", " + rest + "}").messages;
      ASSERT_EQ(messages.size(), 3u) << rest;
      EXPECT_EQ(messages[0], (ChatMessage{.role = "system", .content = "s", .is_target = false}));
      EXPECT_EQ(messages[1].content, "q");
      EXPECT_EQ(read_example_at_7("{\"" + key + "\": null, " + rest + "}").messages.size(), 2u);
      EXPECT_EQ(read_example_at_7("{\"" + key + "\": \"\", " + rest + "}").messages.size(), 2u);
    }
  refuses_example(
      R"({"system": "s", "messages": [{"role": "system", "content": "t"}, {"role": "user", "content": "q"}]})",
      {"system message", "\"system\" beside"});
  refuses_example(R"({"system": "s", "system_prompt": "t", )" + turns + "}", {"\"system\" and \"system_prompt\""});
  refuses_example(R"({"system": ["s"], )" + turns + "}", {"system"});
}

TEST(Examples, AHistoryIsTheTurnsBefore) {
  const auto messages =
      read_example_at_7(
          R"({"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["q1", "a1"], ["q2", "a2"]]})")
          .messages;
  EXPECT_EQ(messages, (std::vector<ChatMessage>{{.role = "system", .content = "s", .is_target = false},
                                                {.role = "user", .content = "q1", .is_target = false},
                                                {.role = "assistant", .content = "a1"},
                                                {.role = "user", .content = "q2", .is_target = false},
                                                {.role = "assistant", .content = "a2"},
                                                {.role = "user", .content = "q", .input = "i", .is_target = false},
                                                {.role = "assistant", .content = "a"}}));
  EXPECT_EQ(read_example_at_7(R"({"instruction": "q", "output": "a", "history": []})").messages.size(), 2u);
  refuses_example(R"({"instruction": "q", "output": "a", "history": [["q1"]]})", {"history", "[0]", "pair"});
  refuses_example(R"({"instruction": "q", "output": "a", "history": "before"})", {"history"});
  refuses_example(R"({"prompt": "q", "completion": "a", "history": [["q1", "a1"]]})",
                  {"history", "prompt and completion"});
}

// A prompt of several turns is there to be read, not learned; nor is what its writer gave no weight.
TEST(Examples, TargetsAreAnswersThatAreNotSpared) {
  const auto targets = [](const Example& example) {
    std::string found;
    for (const ChatMessage& message : example.messages) found += message.is_target ? '1' : '0';
    return found;
  };
  const std::string turns =
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"WEIGHT}, {"role": "user", "content": "r"}])";
  const auto with = [&](std::string weight) { return std::string(turns).replace(turns.find("WEIGHT"), 6, weight); };
  const std::string answer = R"([{"role": "assistant", "content": "b"}])";
  EXPECT_EQ(targets(read_example_at_7("{\"prompt\": " + with("") + ", \"completion\": " + answer + "}")), "0001");
  const auto messages = [&](const std::string& weight) {
    const std::string text = with(weight);
    return "{\"messages\": " + text.substr(0, text.size() - 1) + ", {\"role\": \"assistant\", \"content\": \"b\"}]}";
  };
  EXPECT_EQ(targets(read_example_at_7(messages(""))), "0101");
  EXPECT_EQ(targets(read_example_at_7(messages(", \"weight\": 0"))), "0001");
  EXPECT_EQ(targets(read_example_at_7(messages(", \"weight\": 1"))), "0101");
  EXPECT_EQ(targets(read_example_at_7(messages(", \"train\": false"))), "0001");
  refuses_example(messages(", \"weight\": 0.5"), {"weight", "0.5", "0 (no target) or 1"});
}

TEST(Examples, PartsOfTextAreJoined) {
  const Example example = read_example_at_7(
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]},
                       {"role": "assistant", "content": "a"}], "tools": [], "id": 5})");
  EXPECT_EQ(example.messages[0].content, "qr");
}

TEST(Examples, TheFirstSchemaOfAnObjectIsTaken) {
  EXPECT_EQ(
      read_example_at_7(
          R"({"prompt": "x", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})")
          .schema,
      ExampleSchema::messages);
  EXPECT_EQ(read_example_at_7(R"({"prompt": "p", "instruction": "i", "output": "o", "chosen": "c"})").schema,
            ExampleSchema::alpaca);
}

TEST(Examples, WhatIsNoneIsRefusedByName) {
  refuses_example("[]", {"an object"});
  refuses_example(R"({"text": "t"})", {"found \"text\"", "\"messages\"", "\"prompt\" and \"completion\""});
  refuses_example("{}", {"found no key"});
  refuses_example(R"({"prompt": "p"})", {"found \"prompt\""});
  refuses_example(R"({"prompt": "p", "chosen": "c", "rejected": "r"})", {"a preference"});
  refuses_example(R"({"messages": "q"})", {"\"messages\"", "an array"});
  refuses_example(R"({"messages": [{"role": "user"}]})", {"\"messages\"[0]", "\"content\" is missing"});
  refuses_example(R"({"messages": [{"role": "user", "content": null}]})", {"\"content\"", "found null", "a string"});
  refuses_example(R"({"messages": [{"role": 1, "content": "q"}]})", {"\"role\"", "a string"});
  refuses_example(R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]})",
                  {"\"content\"[0]", "image_url", "--skip-bad"});
  refuses_example(R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]})",
                  {"\"tool_calls\""});
  refuses_example(R"({"tools": [{"name": "f"}], "messages": []})", {"\"tools\""});
  refuses_example(R"({"prompt": "q", "completion": ""})", {"message 2", "empty"});
  refuses_example(R"({"instruction": "q", "output": " \n\t"})", {"message 2", "empty"});
  refuses_example(R"({"instruction": "q", "output": 5})", {"\"output\"", "a string"});
}

}  // namespace
}  // namespace smoe
