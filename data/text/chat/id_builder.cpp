#include "data/text/chat/id_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace smoe {

void IdBuilder::token(std::int32_t id) {
  cut();
  ids_.push_back(id);
  place_ = TextPlace::after_token;
}

void IdBuilder::whole_text(std::string_view text) {
  cut();
  place_ = TextPlace::opens;
  encode(text);
}

void IdBuilder::cut() {
  encode(pending_);
  pending_.clear();
}

void IdBuilder::begin_answer() {
  cut();
  answers_.push_back({ids_.size(), ids_.size()});
}

void IdBuilder::end_answer() {
  cut();
  answers_.back().end = ids_.size();
}

void IdBuilder::encode(std::string_view text) {
  if (text.empty()) return;
  const std::size_t before = ids_.size();
  tokenizer_->encode_literal(text, place_, unread_, ids_);
  place_ = TextPlace::inside;
  // No text joins to a special token in any vocabulary in use; what a message says must not, whatever the vocabulary.
  const auto found = std::find_if(ids_.begin() + static_cast<std::ptrdiff_t>(before), ids_.end(), [&](std::int32_t id) {
    return id != tokenizer_->unk() &&
           (tokenizer_->is_control(id) || std::find(unread_.begin(), unread_.end(), id) != unread_.end());
  });
  if (found != ids_.end())
    throw std::runtime_error(
        fmt::format("{}: its text is encoded with the special token of id {}, which this vocabulary joins from its "
                    "characters; take them out of the text",
                    turn_, *found));
}

}  // namespace smoe
