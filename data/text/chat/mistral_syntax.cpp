// Mistral's own: [INST] around what users say, eos behind each answer, bos once. As the package mistral-common has it
// (tokens/tokenizers/instruct.py: InstructTokenizerV1 and V3), but for tools.
#include <fmt/format.h>

#include <stdexcept>

#include "data/text/chat/chat_syntax.h"

namespace smoe {

namespace {

std::string with_system(const ChatSyntax::Question& question, bool here) {
  std::string text;
  if (here && question.system && !question.system->empty()) text = *question.system + "\n\n";
  return text + with_input(question);
}

// Every turn is a text of its own, with SentencePiece's space in front.
class MixtralSyntax : public ChatSyntax {
 public:
  MixtralSyntax(std::string_view name, const Tokenizer& tokenizer)
      : bos_(require_bos(name, tokenizer)), eos_(require_eos(name, tokenizer)) {}

  void open(const std::string*, IdBuilder& ids) const override { ids.token(bos_); }
  void answer(std::string_view text, IdBuilder& ids) const override {
    ids.begin_answer();
    ids.whole_text(text);
    ids.token(eos_);
    ids.end_answer();
  }
  std::int32_t end_of_answer() const override { return eos_; }
  bool answer_opens_text() const override { return true; }

 private:
  std::int32_t bos_, eos_;
};

// Mixtral 8x7B Instruct: [INST] is written as text.
class MixtralV1 final : public MixtralSyntax {
 public:
  explicit MixtralV1(const Tokenizer& tokenizer) : MixtralSyntax("mixtral-v1", tokenizer) {
    if (const NamedToken token = tokenizer.token_named("[INST]"); token.id >= 0)
      throw std::runtime_error(
          fmt::format("template mixtral-v1 writes [INST] as text, but the tokenizer has it as a token (id {}), as "
                      "Mistral's vocabularies from v2 on: take mixtral-v3",
                      token.id));
  }

  void ask(const Question& question, IdBuilder& ids) const override {
    ids.whole_text(fmt::format("[INST] {} [/INST]", with_system(question, question.is_first)));
  }
};

// Mixtral 8x22B Instruct: control tokens, and the system message with the last question.
class MixtralV3 final : public MixtralSyntax {
 public:
  explicit MixtralV3(const Tokenizer& tokenizer) : MixtralSyntax("mixtral-v3", tokenizer) {
    if (tokenizer.token_named("[INST]").id < 0)
      throw std::runtime_error(
          "template mixtral-v3 needs [INST] and [/INST] as tokens, which the tokenizer has not; of Mistral's v1, Mixtral "
          "8x7B's, take mixtral-v1");
    if (const NamedToken token = tokenizer.token_named("[SYSTEM_PROMPT]"); token.id >= 0)
      throw std::runtime_error(fmt::format(
          "template mixtral-v3: the tokenizer has [SYSTEM_PROMPT] (id {}), as Mistral's vocabularies from v7 "
          "on, which write conversations otherwise: not supported",
          token.id));
    const std::vector<std::int32_t> tokens = require_tokens("mixtral-v3", tokenizer, {"[INST]", "[/INST]"});
    begin_ = tokens[0];
    end_ = tokens[1];
  }

  void ask(const Question& question, IdBuilder& ids) const override {
    ids.token(begin_);
    ids.whole_text(with_system(question, question.is_last));
    ids.token(end_);
  }
  std::string_view answer_text(std::string_view text) const override {
    return text.substr(0, text.find_last_not_of(' ') + 1);
  }
  std::vector<std::int32_t> unread() const override { return {begin_, end_}; }

 private:
  std::int32_t begin_ = -1, end_ = -1;
};

}  // namespace

std::unique_ptr<const ChatSyntax> make_mixtral_v1(const Tokenizer& tokenizer) {
  return std::make_unique<MixtralV1>(tokenizer);
}

std::unique_ptr<const ChatSyntax> make_mixtral_v3(const Tokenizer& tokenizer) {
  return std::make_unique<MixtralV3>(tokenizer);
}

}  // namespace smoe
