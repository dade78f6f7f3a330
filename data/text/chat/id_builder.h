// The ids of a conversation while they are put together, from texts and from tokens that are known by id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/tokenizer.h"

namespace smoe {

class IdBuilder {
 public:
  struct Range {
    std::size_t begin = 0, end = 0;
  };

  // unread: tokens of the template that are not special, and must not be read from what a message says either. Both must
  // outlive the builder.
  IdBuilder(const Tokenizer& tokenizer, std::span<const std::int32_t> unread)
      : tokenizer_(&tokenizer), unread_(unread) {}

  // Which message the texts that follow belong to, for messages of errors.
  void begin_turn(std::string turn) { turn_ = std::move(turn); }
  // A token; what follows stands behind it.
  void token(std::int32_t id);
  // bos in front of a text, which opens all the same.
  void bos(std::int32_t id) { ids_.push_back(id); }
  // Texts one after the other are encoded as one, up to the next token or cut.
  void text(std::string_view text) { pending_ += text; }
  // Encoded alone and as a text of its own.
  void whole_text(std::string_view text);
  // What was given so far is encoded; what follows goes on inside the text, but is encoded apart.
  void cut();
  // Ids from here on are an answer, up to end_answer().
  void begin_answer();
  void end_answer();

  const std::vector<std::int32_t>& ids() const { return ids_; }
  const std::vector<Range>& answers() const { return answers_; }
  std::vector<std::int32_t> take_ids() { return std::move(ids_); }

 private:
  void encode(std::string_view text);

  const Tokenizer* tokenizer_;
  std::span<const std::int32_t> unread_;
  std::string turn_, pending_;
  TextPlace place_ = TextPlace::opens;
  std::vector<std::int32_t> ids_;
  std::vector<Range> answers_;
};

}  // namespace smoe
