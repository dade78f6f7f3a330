// Templates of one question and one answer, for models that continue texts.
#include <fmt/format.h>

#include "data/text/chat/chat_syntax.h"
#include "data/text/text_begin.h"

namespace smoe {

namespace {

class SingleSyntax : public ChatSyntax {
 public:
  SingleSyntax(std::string_view name, const Tokenizer& tokenizer)
      : bos_(texts_begin_with_bos(tokenizer) ? tokenizer.bos() : -1), eos_(require_eos(name, tokenizer)) {
    require_answers_apart(name, tokenizer);
  }

  void open(const std::string*, IdBuilder& ids) const override {
    if (bos_ >= 0) ids.bos(bos_);
  }
  void answer(std::string_view text, IdBuilder& ids) const override {
    ids.begin_answer();
    ids.text(text);
    ids.token(eos_);
    ids.end_answer();
  }
  std::int32_t end_of_answer() const override { return eos_; }
  bool takes_turns() const override { return false; }
  bool takes_system() const override { return false; }

 private:
  std::int32_t bos_, eos_;
};

// Stanford's: https://github.com/tatsu-lab/stanford_alpaca, train.py
class Alpaca final : public SingleSyntax {
 public:
  explicit Alpaca(const Tokenizer& tokenizer) : SingleSyntax("alpaca", tokenizer) {}

  void ask(const Question& question, IdBuilder& ids) const override {
    ids.text("Below is an instruction that describes a task");
    if (!question.input.empty()) ids.text(", paired with an input that provides further context");
    ids.text(". Write a response that appropriately completes the request.\n\n### Instruction:\n");
    ids.text(question.content);
    if (!question.input.empty()) ids.text(fmt::format("\n\n### Input:\n{}", question.input));
    ids.text("\n\n### Response:");
    ids.cut();
  }
};

// A prompt and its completion, with nothing between them.
class Plain final : public SingleSyntax {
 public:
  explicit Plain(const Tokenizer& tokenizer) : SingleSyntax("plain", tokenizer) {}

  void ask(const Question& question, IdBuilder& ids) const override {
    ids.text(with_input(question));
    ids.cut();
  }
};

}  // namespace

std::unique_ptr<const ChatSyntax> make_alpaca(const Tokenizer& tokenizer) {
  return std::make_unique<Alpaca>(tokenizer);
}

std::unique_ptr<const ChatSyntax> make_plain(const Tokenizer& tokenizer) { return std::make_unique<Plain>(tokenizer); }

}  // namespace smoe
