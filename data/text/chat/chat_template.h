// Conversations as ids: what a model was, or is to be, trained to read, one template for each way in which models in use
// were. Ids are built turn by turn and never parsed out of rendered text, so no special token, and none of the template's
// own, is read from what a message says: "</s>" in it is four characters. docs/formats.md has each template's ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

class ChatSyntax;
class IdBuilder;
class Tokenizer;

struct ChatMessage {
  std::string role;     // "system", "user" or "assistant"
  std::string content;  // UTF-8
  // Of a user's message: what its instruction is about, empty where there is nothing. `alpaca` has a place for it; for the
  // others it is a line of the content.
  std::string input = {};
  // Of an answer: false keeps its ids from being targets, whatever LossOn says.
  bool is_target = true;

  bool operator==(const ChatMessage&) const = default;
};

// Which ids of an example are targets, but for its first, which nothing predicts. completions: those of every answer, and
// the eos or end-of-turn after it; last: of the last answer; all: every id.
enum class LossOn : std::uint8_t { completions, last, all };

struct ChatIds {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> is_target;  // one an id, 0 or 1
};

// Const members may be called from several threads at once.
class ChatTemplate {
 public:
  // name: one of names(). tokenizer: must outlive this. Throws std::runtime_error for a name that is none of them, and,
  // by name, where the tokenizer lacks what the template needs or is of another template's models.
  ChatTemplate(std::string_view name, const Tokenizer& tokenizer);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // A whole training example: a system message or none, then user and assistant in turn, the last an assistant's. Throws
  // std::runtime_error that names turn (from 1) and role: a role out of turn or unknown, an answer without text.
  ChatIds encode(std::span<const ChatMessage> messages, LossOn loss_on) const;

  // Up to where the assistant's next answer begins; the last message is a user's. encode() of the same messages and an
  // answer begins with these ids. (mixtral-v3 moves the system message to the last user's turn, so there only of an
  // example that goes no further.)
  std::vector<std::int32_t> prompt(std::span<const ChatMessage> messages) const;

  // Each of them ends an answer.
  std::span<const std::int32_t> stop_ids() const { return stops_; }

  // Whether an answer's text begins as texts do, with SentencePiece's space in front, or goes on from its header: what a
  // StreamDecoder of an answer's ids starts with.
  bool answer_opens_text() const;
  // Whether a conversation may have more than one answer, and a system message.
  bool takes_turns() const;
  bool takes_system() const;

  const std::string& name() const { return name_; }
  static std::span<const std::string_view> names();

 private:
  void build(std::span<const ChatMessage> messages, IdBuilder& ids) const;

  const Tokenizer* tokenizer_;
  std::string name_;
  std::unique_ptr<const ChatSyntax> syntax_;
  std::vector<std::int32_t> stops_, unread_;
};

}  // namespace smoe
