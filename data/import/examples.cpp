#include "data/import/examples.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace smoe {

namespace {

[[noreturn]] void refuse_example(const std::string& where, const std::string& what) {
  throw std::runtime_error(where + ": " + what);
}

// The parts of a content that is a list, joined.
std::string join_parts(const Json& parts, const std::string& where) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const JsonReader part(parts[i], fmt::format("{}[{}]", where, i));
    const std::string& type = part.require_string("type");
    if (type != "text")
      refuse_example(part.where(), fmt::format("a part of type {}, expected \"text\": images, sound and tools are not "
                                               "trained on; leave such examples out (--skip-bad N)",
                                               quote_for_message(type)));
    text += part.require_string("text");
  }
  return text;
}

std::string content_of(const JsonReader& message, const std::string& key) {
  if (message.has(key) && message.object().at(key).is_array())
    return join_parts(message.object().at(key), message.where() + ": " + quote_for_message(key));
  return message.require_string(key);
}

// The key is absent, or null, false or empty.
bool says_nothing(const JsonReader& object, const std::string& key) {
  if (!object.has(key)) return true;
  const Json& value = object.object().at(key);
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.is_null() || ((value.is_array() || value.is_object()) && value.empty());
}

void refuse_tools(const JsonReader& object) {
  for (const char* key :
       {"tools", "tool_calls", "function_call", "functions", "image", "images", "audio", "audios", "video", "videos"}) {
    if (says_nothing(object, key)) continue;
    refuse_example(object.where(), fmt::format("it has {}, which no template here has a place for: leave such examples "
                                               "out (--skip-bad N), or take the key out where it means nothing",
                                               quote_for_message(key)));
  }
}

// Roles of sharegpt's datasets; those of messages are the templates' own.
std::string role_of(const JsonReader& turn, const std::string& key) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> names{{{"human", "user"},
                                                                                       {"gpt", "assistant"},
                                                                                       {"chatgpt", "assistant"},
                                                                                       {"bing", "assistant"},
                                                                                       {"bard", "assistant"}}};
  const std::string& found = turn.require_string(key);
  for (const auto& [theirs, ours] : names)
    if (found == theirs) return std::string(ours);
  return found;
}

// OpenAI's `weight` and axolotl's `train`.
bool is_trained(const JsonReader& message) {
  if (const auto weight = message.optional_number("weight")) {
    if (*weight != 0 && *weight != 1)
      refuse_example(
          message.where(),
          fmt::format("\"weight\" is {}, expected 0 (no target) or 1: parts of a weight are not supported", *weight));
    return *weight != 0;
  }
  return message.optional_bool("train").value_or(true);
}

std::vector<ChatMessage> read_turns(const JsonReader& object, const std::string& key, const char* role_key,
                                    const char* content_key) {
  const Json& turns = object.require_array(key);
  std::vector<ChatMessage> messages;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const JsonReader turn(turns[i], fmt::format("{}: {}[{}]", object.where(), quote_for_message(key), i));
    refuse_tools(turn);
    ChatMessage message{.role = role_of(turn, role_key), .content = content_of(turn, content_key)};
    message.is_target = message.role == "assistant" && is_trained(turn);
    messages.push_back(std::move(message));
  }
  return messages;
}

// One message, or those of a list.
void append_side(const JsonReader& object, const std::string& key, const char* role, bool is_target,
                 std::vector<ChatMessage>& messages) {
  if (!object.has(key) || !object.object().at(key).is_array()) {
    messages.push_back({.role = role, .content = object.require_string(key), .is_target = is_target});
    return;
  }
  for (ChatMessage& message : read_turns(object, key, "role", "content")) {
    message.is_target = message.is_target && is_target;
    messages.push_back(std::move(message));
  }
}

// LLaMA-Factory's: what was said before, a list of pairs of a question and its answer.
void append_history(const JsonReader& object, std::vector<ChatMessage>& messages) {
  if (says_nothing(object, "history")) return;
  const Json& pairs = object.require_array("history");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Json& pair = pairs[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
      refuse_example(object.where(), fmt::format("\"history\"[{}] is {}, expected a pair of texts: [question, answer]",
                                                 i, quote_for_message(dump_json(pair))));
    messages.push_back({.role = "user", .content = pair[0].get<std::string>(), .is_target = false});
    messages.push_back({.role = "assistant", .content = pair[1].get<std::string>()});
  }
}

Example read_alpaca(const JsonReader& object) {
  Example example{.schema = ExampleSchema::alpaca, .messages = {}};
  append_history(object, example.messages);
  example.messages.push_back({.role = "user",
                              .content = object.require_string("instruction"),
                              .input = object.optional_string("input").value_or(""),
                              .is_target = false});
  example.messages.push_back({.role = "assistant", .content = object.require_string("output")});
  return example;
}

Example read_any(const JsonReader& object) {
  if (object.has("messages")) return {ExampleSchema::messages, read_turns(object, "messages", "role", "content")};
  if (object.has("prompt") && object.has("completion")) {
    Example example{.schema = ExampleSchema::prompt_completion, .messages = {}};
    append_side(object, "prompt", "user", false, example.messages);
    append_side(object, "completion", "assistant", true, example.messages);
    return example;
  }
  if (object.has("conversations"))
    return {ExampleSchema::sharegpt, read_turns(object, "conversations", "from", "value")};
  if (object.has("instruction") && object.has("output")) return read_alpaca(object);
  if (object.has("chosen") || object.has("rejected"))
    refuse_example(object.where(),
                   "a preference (\"chosen\", \"rejected\"), which is not trained on here; examples have \"messages\", "
                   "\"prompt\" and \"completion\", \"instruction\" and \"output\", or \"conversations\"");
  refuse_example(object.where(),
                 fmt::format("found {}, expected an example: \"messages\", \"prompt\" and \"completion\", "
                             "\"instruction\" and \"output\", or \"conversations\"",
                             keys_for_message(object.object())));
}

// A system message that stands beside the turns, under "system" or "system_prompt".
void take_system(const JsonReader& object, Example& example) {
  const char* taken = nullptr;
  for (const char* key : {"system", "system_prompt"}) {
    if (says_nothing(object, key)) continue;
    if (taken)
      refuse_example(object.where(), fmt::format("it has \"{}\" and \"{}\", expected one of them", taken, key));
    const bool again = std::any_of(example.messages.begin(), example.messages.end(),
                                   [](const ChatMessage& message) { return message.role == "system"; });
    if (again)
      refuse_example(
          object.where(),
          fmt::format("it has a system message among its turns and \"{}\" beside them, expected one of them", key));
    taken = key;
  }
  if (taken)
    example.messages.insert(example.messages.begin(),
                            {.role = "system", .content = object.require_string(taken), .is_target = false});
}

}  // namespace

const char* name_of(ExampleSchema schema) {
  switch (schema) {
    case ExampleSchema::messages: return "messages";
    case ExampleSchema::prompt_completion: return "prompt and completion";
    case ExampleSchema::sharegpt: return "sharegpt";
    case ExampleSchema::alpaca: return "alpaca";
  }
  return "";
}

Example read_example(const Json& object, const std::string& where) {
  const JsonReader reader(object, where);
  refuse_tools(reader);
  Example example = read_any(reader);
  if (example.schema != ExampleSchema::alpaca && !says_nothing(reader, "history"))
    refuse_example(where,
                   fmt::format("it has \"history\", which stands beside \"instruction\" and \"output\" alone, and is "
                               "read as {}: put it into the turns, or take it out",
                               name_of(example.schema)));
  take_system(reader, example);
  for (std::size_t i = 0; i < example.messages.size(); ++i) {
    const ChatMessage& message = example.messages[i];
    if (message.role == "assistant" && message.content.find_first_not_of(" \t\r\n") == std::string::npos)
      refuse_example(where,
                     fmt::format("message {}, the assistant's, is empty: there is nothing to learn in it", i + 1));
  }
  return example;
}

}  // namespace smoe
