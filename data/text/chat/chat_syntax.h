// How one template writes a conversation: what stands around messages. Which roles come in which order, and which ids are
// targets, is ChatTemplate's.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/chat/id_builder.h"
#include "data/text/tokenizer.h"

namespace smoe {

class ChatSyntax {
 public:
  // What a user's turn holds, and where it stands. system: of the whole conversation; null: there is none.
  struct Question {
    std::string_view content, input;
    const std::string* system = nullptr;
    bool is_first = true, is_last = true;
  };

  virtual ~ChatSyntax() = default;

  // What stands in front of all turns. system: null where there is none.
  virtual void open(const std::string* system, IdBuilder& ids) const = 0;
  // A user's turn, and the header of the answer to it.
  virtual void ask(const Question& question, IdBuilder& ids) const = 0;
  // Between begin_answer() and end_answer() what the model is to write, with the id that ends it; then what stands
  // behind it. text: as answer_text() gave it.
  virtual void answer(std::string_view text, IdBuilder& ids) const = 0;

  // The part of an answer that is kept.
  virtual std::string_view answer_text(std::string_view text) const { return text; }
  virtual std::int32_t end_of_answer() const = 0;
  virtual bool answer_opens_text() const { return false; }
  virtual bool takes_turns() const { return true; }
  virtual bool takes_system() const { return true; }
  // Tokens of the template that are not to be read from messages, special ones or not.
  virtual std::vector<std::int32_t> unread() const { return {}; }
};

// The content of a message whose input has no place of its own.
std::string with_input(const ChatSyntax::Question& question);

// Ids of the tokens that a template is made of. Throws std::runtime_error that names those that the tokenizer lacks, and
// those that would take white space of the messages along.
std::vector<std::int32_t> require_tokens(std::string_view name, const Tokenizer& tokenizer,
                                         std::initializer_list<std::string_view> contents);
// Throws std::runtime_error where the tokenizer has none.
std::int32_t require_bos(std::string_view name, const Tokenizer& tokenizer);
std::int32_t require_eos(std::string_view name, const Tokenizer& tokenizer);
// Throws std::runtime_error where an answer cannot be encoded apart from its header.
void require_answers_apart(std::string_view name, const Tokenizer& tokenizer);

// Mistral's (mistral_syntax.cpp), those that mark turns by role (marked_syntax.cpp), and those of one question and one
// answer (single_syntax.cpp). Each throws std::runtime_error where the tokenizer does not fit.
std::unique_ptr<const ChatSyntax> make_mixtral_v1(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_mixtral_v3(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_chatml(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_llama3(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_zephyr(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_alpaca(const Tokenizer& tokenizer);
std::unique_ptr<const ChatSyntax> make_plain(const Tokenizer& tokenizer);

}  // namespace smoe
