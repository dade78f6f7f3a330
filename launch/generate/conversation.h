// A conversation with a model: what was said, and what is said next.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/chat/chat_template.h"
#include "data/text/tokenizer.h"
#include "trainer/generate.h"
#include "trainer/inference.h"
#include "trainer/kept_sequence.h"

namespace smoe {

// The template cannot put a question.
class NotAsked : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Conversation {
 public:
  // How an answer ended: at a stop, at max_tokens, where the model has no more positions, by on_text, or without a word.
  // no_room: it was not begun, as the question leaves no position for it.
  enum class End : std::uint8_t { stop, max_tokens, positions, broken_off, nothing, no_room };

  struct Answer {
    End end;
    std::int64_t prompt_tokens = 0;
  };

  // All must outlive it. positions: the most ids that prompt and answer together may have. options.stops are those of the
  // model; the template's are added.
  Conversation(InferenceModel& model, const Tokenizer& tokenizer, const ChatTemplate& chat, GenerateOptions options,
               std::int64_t positions, std::string system);

  // on_text is called with the answer as it comes; returning false breaks it off, and what came is the answer. Question and
  // answer are kept, but for nothing and no_room. Where the template has no turns, each question begins anew. Throws
  // NotAsked, and changes nothing; otherwise what on_text and generate() throw.
  Answer ask(std::string_view question, const std::function<bool(std::string_view)>& on_text);

  // Back to where it began.
  void reset();
  // {"messages": [{"role": ..., "content": ...}, ...]}, whole or not at all, in place of what was there. Throws
  // std::runtime_error where it cannot be written.
  void save(const std::string& path) const;

  std::size_t messages() const { return messages_.size(); }
  std::int64_t positions() const { return positions_; }

 private:
  InferenceModel& model_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  GenerateOptions options_;
  std::int64_t positions_;
  std::string system_;
  std::vector<ChatMessage> messages_;
  KeptSequence kept_;
};

}  // namespace smoe
