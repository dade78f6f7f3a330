#include "data/text/chat/chat_syntax.h"

#include <fmt/format.h>

#include <stdexcept>

namespace smoe {

std::string with_input(const ChatSyntax::Question& question) {
  std::string text(question.content);
  if (!question.input.empty()) text += fmt::format("{}{}", text.empty() ? "" : "\n", question.input);
  return text;
}

std::vector<std::int32_t> require_tokens(std::string_view name, const Tokenizer& tokenizer,
                                         std::initializer_list<std::string_view> contents) {
  std::vector<std::int32_t> ids;
  std::vector<std::string_view> missing;
  for (const std::string_view content : contents) {
    const NamedToken token = tokenizer.token_named(content);
    if (token.id < 0) missing.push_back(content);
    if (token.strips)
      throw std::runtime_error(fmt::format(
          "template {}: the tokenizer's {} takes white space beside it along (lstrip or rstrip), which would "
          "change what messages say: not supported",
          name, content));
    ids.push_back(token.id);
  }
  if (!missing.empty())
    throw std::runtime_error(fmt::format(
        "template {} needs {}, which the tokenizer has not as a token; a model that was trained with it has "
        "them in its directory (tokenizer_config.json, tokenizer.json): name that, or take another template",
        name, fmt::join(missing, ", ")));
  return ids;
}

std::int32_t require_bos(std::string_view name, const Tokenizer& tokenizer) {
  if (tokenizer.bos() < 0)
    throw std::runtime_error(fmt::format(
        "template {} begins with bos, which the tokenizer has not; bos_token of tokenizer_config.json names it", name));
  return tokenizer.bos();
}

std::int32_t require_eos(std::string_view name, const Tokenizer& tokenizer) {
  if (tokenizer.eos() < 0)
    throw std::runtime_error(fmt::format(
        "template {} ends answers with eos, which the tokenizer has not; eos_token of tokenizer_config.json "
        "names it",
        name));
  return tokenizer.eos();
}

void require_answers_apart(std::string_view name, const Tokenizer& tokenizer) {
  try {
    std::vector<std::int32_t> ids;
    tokenizer.encode_literal("a", TextPlace::inside, {}, ids);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(
        fmt::format("template {} encodes an answer apart from what stands in front of it: {}", name, error.what()));
  }
}

}  // namespace smoe
