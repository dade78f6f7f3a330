#include "launch/generate/conversation.h"

#include <algorithm>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"
#include "data/text/white_space.h"

namespace smoe {

Conversation::Conversation(InferenceModel& model, const Tokenizer& tokenizer, const ChatTemplate& chat,
                           GenerateOptions options, std::int64_t positions, std::string system)
    : model_(model),
      tokenizer_(tokenizer),
      chat_(chat),
      options_(std::move(options)),
      positions_(positions),
      system_(std::move(system)),
      kept_(model) {
  options_.stops.insert(options_.stops.end(), chat_.stop_ids().begin(), chat_.stop_ids().end());
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!system_.empty()) messages_.push_back({"system", system_});
}

Conversation::Answer Conversation::ask(std::string_view question,
                                       const std::function<bool(std::string_view)>& on_text) {
  if (!chat_.takes_turns()) reset();
  std::vector<ChatMessage> asked = messages_;
  asked.push_back({"user", std::string(question)});
  const std::vector<std::int32_t> prompt = [&] {
    try {
      return chat_.prompt(asked);
    } catch (const std::runtime_error& error) {
      throw NotAsked(error.what());
    }
  }();
  const auto length = static_cast<std::int64_t>(prompt.size());
  if (length >= positions_) return {End::no_room, length};

  GenerateOptions options = options_;
  options.max_tokens = std::min(options.max_tokens, positions_ - length);
  StreamDecoder decoder(tokenizer_, chat_.answer_opens_text());
  std::string text;
  bool broken_off = false;
  const auto show = [&](const std::string& piece) {
    text += piece;
    return on_text(piece);
  };
  const auto made = generate(
      model_, prompt, options,
      [&](std::int32_t id) {
        broken_off = !show(decoder.push(id));
        return !broken_off;
      },
      &kept_);
  if (const std::string rest = decoder.finish(); !rest.empty()) show(rest);
  if (end_of_white_space(text, 0, is_python_space) == text.size())
    return {broken_off ? End::broken_off : End::nothing, length};

  asked.push_back({"assistant", std::move(text)});
  messages_ = std::move(asked);
  const bool whole = static_cast<std::int64_t>(made.size()) < options.max_tokens;
  return {broken_off                                  ? End::broken_off
          : whole                                     ? End::stop
          : options.max_tokens == options_.max_tokens ? End::max_tokens
                                                      : End::positions,
          length};
}

void Conversation::save(const std::string& path) const {
  OrderedJson messages = OrderedJson::array();
  for (const ChatMessage& message : messages_)
    messages.push_back(OrderedJson{{"role", message.role}, {"content", message.content}});
  // On one line: an example that `smoe prepare --chat` takes, be the file called .json or .jsonl.
  write_file_atomically(path, dump_json(OrderedJson{{"messages", std::move(messages)}}) + "\n");
}

}  // namespace smoe
