// Templates that write a role in front of each turn. An answer is encoded apart from its header, so that what a model is
// asked with is what it was trained behind.
#include <string>

#include "data/text/chat/chat_syntax.h"
#include "data/text/white_space.h"

namespace smoe {

namespace {

class MarkedSyntax : public ChatSyntax {
 public:
  void open(const std::string* system, IdBuilder& ids) const override {
    if (system) turn("system", *system, ids);
  }
  void ask(const Question& question, IdBuilder& ids) const override {
    turn("user", with_input(question), ids);
    header("assistant", ids);
    ids.cut();
  }
  void answer(std::string_view text, IdBuilder& ids) const override {
    ids.begin_answer();
    ids.text(text);
    ids.token(end_of_answer());
    ids.end_answer();
    behind(ids);
  }

 protected:
  virtual void header(std::string_view role, IdBuilder& ids) const = 0;
  // What stands behind the token that ends a turn.
  virtual void behind(IdBuilder&) const {}

  void turn(std::string_view role, std::string_view text, IdBuilder& ids) const {
    header(role, ids);
    ids.text(answer_text(text));
    ids.token(end_of_answer());
    behind(ids);
  }
};

// <|im_start|>ROLE\nTEXT<|im_end|>\n
class ChatMl final : public MarkedSyntax {
 public:
  explicit ChatMl(const Tokenizer& tokenizer)
      : tokens_(require_tokens("chatml", tokenizer, {"<|im_start|>", "<|im_end|>"})) {
    require_answers_apart("chatml", tokenizer);
  }

  std::int32_t end_of_answer() const override { return tokens_[1]; }
  std::vector<std::int32_t> unread() const override { return tokens_; }

 protected:
  void header(std::string_view role, IdBuilder& ids) const override {
    ids.token(tokens_[0]);
    ids.text(role);
    ids.text("\n");
  }
  void behind(IdBuilder& ids) const override { ids.text("\n"); }

 private:
  std::vector<std::int32_t> tokens_;
};

// Llama 3's: <|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|>, texts without white space around them.
class Llama3 final : public MarkedSyntax {
 public:
  explicit Llama3(const Tokenizer& tokenizer)
      : tokens_(require_tokens("llama3", tokenizer,
                               {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})) {
    require_answers_apart("llama3", tokenizer);
  }

  void open(const std::string* system, IdBuilder& ids) const override {
    ids.token(tokens_[0]);
    MarkedSyntax::open(system, ids);
  }
  std::string_view answer_text(std::string_view text) const override {
    text = text.substr(end_of_white_space(text, 0, is_python_space));
    return text.substr(0, begin_of_white_space(text, 0, text.size(), is_python_space));
  }
  std::int32_t end_of_answer() const override { return tokens_[3]; }
  std::vector<std::int32_t> unread() const override { return tokens_; }

 protected:
  void header(std::string_view role, IdBuilder& ids) const override {
    ids.token(tokens_[1]);
    ids.text(role);
    ids.token(tokens_[2]);
    ids.text("\n\n");
  }

 private:
  std::vector<std::int32_t> tokens_;
};

// Zephyr's: <|ROLE|>\nTEXT</s>\n, where </s> is eos and <|ROLE|> is text unless the tokenizer has it as a token.
class Zephyr final : public MarkedSyntax {
 public:
  explicit Zephyr(const Tokenizer& tokenizer) : tokenizer_(&tokenizer), eos_(require_eos("zephyr", tokenizer)) {
    require_answers_apart("zephyr", tokenizer);
    for (const char* mark : {"<|system|>", "<|user|>", "<|assistant|>"})
      if (tokenizer.token_named(mark).id >= 0) marks_.push_back(require_tokens("zephyr", tokenizer, {mark}).front());
  }

  std::int32_t end_of_answer() const override { return eos_; }
  std::vector<std::int32_t> unread() const override { return marks_; }

 protected:
  void header(std::string_view role, IdBuilder& ids) const override {
    const std::string mark = "<|" + std::string(role) + "|>";
    if (const NamedToken token = tokenizer_->token_named(mark); token.id >= 0)
      ids.token(token.id);
    else
      ids.text(mark);
    ids.text("\n");
  }
  void behind(IdBuilder& ids) const override { ids.text("\n"); }

 private:
  const Tokenizer* tokenizer_;
  std::int32_t eos_;
  std::vector<std::int32_t> marks_;
};

}  // namespace

std::unique_ptr<const ChatSyntax> make_chatml(const Tokenizer& tokenizer) {
  return std::make_unique<ChatMl>(tokenizer);
}

std::unique_ptr<const ChatSyntax> make_llama3(const Tokenizer& tokenizer) {
  return std::make_unique<Llama3>(tokenizer);
}

std::unique_ptr<const ChatSyntax> make_zephyr(const Tokenizer& tokenizer) {
  return std::make_unique<Zephyr>(tokenizer);
}

}  // namespace smoe
