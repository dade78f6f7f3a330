#include "data/text/chat/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "data/files/json.h"
#include "data/text/chat/chat_syntax.h"
#include "data/text/chat/id_builder.h"
#include "data/text/tokenizer.h"

namespace smoe {

namespace {

struct NamedTemplate {
  std::string_view name;
  std::unique_ptr<const ChatSyntax> (*make)(const Tokenizer&);
};

constexpr std::array<NamedTemplate, 7> chat_templates = {{{"mixtral-v1", make_mixtral_v1},
                                                          {"mixtral-v3", make_mixtral_v3},
                                                          {"chatml", make_chatml},
                                                          {"llama3", make_llama3},
                                                          {"zephyr", make_zephyr},
                                                          {"alpaca", make_alpaca},
                                                          {"plain", make_plain}}};

constexpr auto chat_template_names = [] {
  std::array<std::string_view, chat_templates.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = chat_templates[i].name;
  return names;
}();

bool has_system(std::span<const ChatMessage> messages) { return !messages.empty() && messages[0].role == "system"; }

std::string turn_name(std::span<const ChatMessage> messages, std::size_t i) {
  return fmt::format("turn {} ({})", i + 1, messages[i].role);
}

// Which role each turn has: a system message first or not at all, then user and assistant in turn.
class RoleCheck {
 public:
  RoleCheck(const std::string& name, const ChatSyntax& syntax, std::span<const ChatMessage> messages)
      : name_(name), syntax_(syntax), messages_(messages) {}

  void run() const {
    if (messages_.empty()) throw std::runtime_error("the conversation has no message, expected one of a user at least");
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      const std::string& role = messages_[i].role;
      if (role == "system")
        check_system(i);
      else if (role == "user")
        check_user(i);
      else if (role == "assistant")
        check_assistant(i);
      else
        throw std::runtime_error(
            fmt::format("turn {} has the role {}, expected system, user or assistant{}", i + 1, quote_for_message(role),
                        role == "tool" || role == "function" ? "; calls of tools are not supported" : ""));
    }
    if (messages_.back().role == "system")
      refuse(messages_.size() - 1, "nothing follows on it, expected a user's message");
  }

 private:
  [[noreturn]] void refuse(std::size_t i, const std::string& why) const {
    throw std::runtime_error(fmt::format("{}: {}", turn_name(messages_, i), why));
  }

  std::size_t first_question() const { return has_system(messages_) ? 1 : 0; }

  void check_system(std::size_t i) const {
    if (i > 0) refuse(i, "a system message opens a conversation, and stands nowhere else in it");
    if (!syntax_.takes_system())
      refuse(i,
             fmt::format("{} has no place for a system message; put its text into the user's, or leave it out", name_));
  }

  void check_user(std::size_t i) const {
    if (i > 0 && messages_[i - 1].role == "user")
      refuse(i, fmt::format("two users in a row, expected the assistant's answer to turn {}", i));
    if (i > first_question() && !syntax_.takes_turns())
      refuse(i, fmt::format("{} has one question and one answer; take another template for conversations", name_));
  }

  void check_assistant(std::size_t i) const {
    if (i == first_question()) refuse(i, "nothing has been asked yet, expected a user's message first");
    if (messages_[i - 1].role == "assistant")
      refuse(i, "two assistants in a row, expected a user's message between them");
    if (syntax_.answer_text(messages_[i].content).empty()) refuse(i, "the answer is empty, expected text");
  }

  const std::string& name_;
  const ChatSyntax& syntax_;
  std::span<const ChatMessage> messages_;
};

}  // namespace

ChatTemplate::ChatTemplate(std::string_view name, const Tokenizer& tokenizer) : tokenizer_(&tokenizer), name_(name) {
  const auto found = std::find_if(chat_templates.begin(), chat_templates.end(),
                                  [&](const NamedTemplate& one) { return one.name == name; });
  if (found == chat_templates.end())
    throw std::runtime_error(fmt::format("there is no chat template {}, expected one of {}", quote_for_message(name),
                                         fmt::join(names(), ", ")));
  syntax_ = found->make(tokenizer);
  stops_ = {syntax_->end_of_answer()};
  unread_ = syntax_->unread();
  for (const std::int32_t id : {tokenizer.bos(), tokenizer.eos()})  // which a directory may list as no special tokens
    if (id >= 0) unread_.push_back(id);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::span<const std::string_view> ChatTemplate::names() { return chat_template_names; }

bool ChatTemplate::answer_opens_text() const { return syntax_->answer_opens_text(); }
bool ChatTemplate::takes_turns() const { return syntax_->takes_turns(); }
bool ChatTemplate::takes_system() const { return syntax_->takes_system(); }

void ChatTemplate::build(std::span<const ChatMessage> messages, IdBuilder& ids) const {
  RoleCheck(name_, *syntax_, messages).run();
  const std::string* const system = has_system(messages) ? &messages[0].content : nullptr;
  const std::size_t first = system ? 1 : 0;
  std::size_t last = messages.size() - 1;
  if (messages[last].role != "user") --last;
  ids.begin_turn(turn_name(messages, 0));
  syntax_->open(system, ids);
  for (std::size_t i = first; i < messages.size(); ++i) {
    ids.begin_turn(turn_name(messages, i));
    const ChatMessage& message = messages[i];
    if (message.role == "user")
      syntax_->ask({message.content, message.input, system, i == first, i == last}, ids);
    else
      syntax_->answer(syntax_->answer_text(message.content), ids);
  }
  ids.cut();
}

ChatIds ChatTemplate::encode(std::span<const ChatMessage> messages, LossOn loss_on) const {
  IdBuilder builder(*tokenizer_, unread_);
  build(messages, builder);
  if (messages.back().role != "assistant")
    throw std::runtime_error(fmt::format("{} has no answer, expected an assistant's message at the end of an example",
                                         turn_name(messages, messages.size() - 1)));
  ChatIds example;
  example.is_target.assign(builder.ids().size(), loss_on == LossOn::all ? 1 : 0);
  std::size_t answer = 0;
  for (const ChatMessage& message : messages) {
    if (message.role != "assistant") continue;
    const IdBuilder::Range& range = builder.answers()[answer++];
    const bool is_last = answer == builder.answers().size();
    const bool chosen = message.is_target && (loss_on != LossOn::last || is_last);
    std::fill(example.is_target.begin() + static_cast<std::ptrdiff_t>(range.begin),
              example.is_target.begin() + static_cast<std::ptrdiff_t>(range.end), std::uint8_t{chosen});
  }
  if (!example.is_target.empty())
    example.is_target.front() = 0;  // an answer's too, where nothing stands in front of it
  example.ids = builder.take_ids();
  return example;
}

std::vector<std::int32_t> ChatTemplate::prompt(std::span<const ChatMessage> messages) const {
  IdBuilder builder(*tokenizer_, unread_);
  build(messages, builder);
  if (messages.back().role != "user")
    throw std::runtime_error(fmt::format("{} ends the conversation, expected a user's message that is to be answered",
                                         turn_name(messages, messages.size() - 1)));
  return builder.take_ids();
}

}  // namespace smoe
