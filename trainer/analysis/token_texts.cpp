#include "trainer/analysis/token_texts.h"

#include <fmt/format.h>

#include <utility>

#include "data/files/printable.h"

namespace smoe {

std::string TokenTexts::of(std::int32_t id) const {
  if (!tokenizer_ || id < 0 || id >= tokenizer_->vocab_size()) return fmt::format("<{}>", id);
  if (id == tokenizer_->bos()) return "<bos>";
  if (id == tokenizer_->eos()) return "<eos>";
  if (id == tokenizer_->unk()) return "<unk>";
  if (tokenizer_->is_control(id)) {
    const std::string written = printable(tokenizer_->token_text(id));
    return written.empty() ? fmt::format("<control {}>", id) : written;
  }
  std::string bytes, text;
  tokenizer_->append_bytes(id, false, bytes);
  for (const char c : printable(bytes)) {
    if (c == '\n')
      text += "\\n";
    else if (c == '\t')
      text += "\\t";
    else
      text += c;
  }
  return text;
}

TokenTexts texts_of(const std::vector<Source>& sources, const std::filesystem::path& model_directory) {
  std::vector<std::filesystem::path> places;
  for (const Source& source : sources) places.emplace_back(source.dataset->directory());
  places.push_back(model_directory);
  for (const auto& place : places) {
    const TokenizerIdentity found = tokenizer_identity(place);
    if (!found.sha256.empty() && found.unread.empty()) return TokenTexts(load_tokenizer(place.string()));
  }
  std::unique_ptr<Tokenizer> bytes = load_tokenizer("bytes");
  for (const Source& source : sources)
    if (source.dataset->info().tokenizer_sha256 == bytes->sha256()) return TokenTexts(std::move(bytes));
  return TokenTexts(nullptr);
}

}  // namespace smoe
