#include "data/text/added_tokens_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/text/white_space.h"

namespace smoe {

namespace {

std::string identity_of(const SentencePieceTokenizer& model, const AddedTokens& added) {
  std::string text = fmt::format("tokenizer.model {} with added tokens\nlegacy {} own_space {} bos {} eos {}\n",
                                 model.sha256(), added.legacy, added.takes_own_space, added.bos, added.eos);
  for (const AddedToken& token : added.tokens)
    text += fmt::format("{} {} {} {}\n", token.id, token.lstrip, token.rstrip, dump_json(Json(token.content)));
  return sha256_hex(text);
}

}  // namespace

AddedTokensTokenizer::AddedTokensTokenizer(std::unique_ptr<SentencePieceTokenizer> model, AddedTokens added)
    : model_(std::move(model)),
      added_(std::move(added)),
      vocab_size_(model_->vocab_size()),
      sha256_(identity_of(*model_, added_)) {
  for (const AddedToken& token : added_.tokens) {
    by_id_[token.id] = static_cast<std::size_t>(&token - added_.tokens.data());
    vocab_size_ = std::max<std::int64_t>(vocab_size_, token.id + 1);
    strips_ = strips_ || token.lstrip || token.rstrip;
    trie_.add(token.content, by_id_.at(token.id));
  }
}

std::optional<AddedTokensTokenizer::Match> AddedTokensTokenizer::next_match(std::string_view text, std::size_t from,
                                                                            const TokensRead& read) const {
  if (added_.tokens.empty()) return std::nullopt;
  const auto is_read = [&](std::size_t place) {
    return read.has(added_.tokens[place].id, added_.tokens[place].special);
  };
  for (std::size_t at = from; at < text.size(); ++at) {
    const auto found = trie_.find(text, at, is_read);
    if (!found) continue;
    const AddedToken& token = added_.tokens[*found];
    const std::size_t end = at + token.content.size();
    return Match{token.lstrip ? begin_of_white_space(text, from, at) : at,
                 token.rstrip ? end_of_white_space(text, end) : end, token.id};
  }
  return std::nullopt;
}

// A place is fit where SentencePiece may be cut and no added token is near enough to reach it, be it with the white
// space that it takes along.
std::size_t AddedTokensTokenizer::next_cut(std::string_view text, std::size_t from) const {
  for (std::size_t cut = model_->next_cut(text, from); cut < text.size(); cut = model_->next_cut(text, cut + 1)) {
    const std::size_t left = strips_ ? begin_of_white_space(text, 0, cut) : cut;
    const std::size_t right = strips_ ? end_of_white_space(text, cut) : cut;
    const std::size_t longest = trie_.longest();
    const std::size_t begin = left - std::min(left, longest), end = std::min(text.size(), right + longest);
    bool near = false;
    for (std::size_t at = begin; at < end && !near; ++at) near = trie_.find(text, at).has_value();
    if (!near) return cut;
  }
  return text.size();
}

void AddedTokensTokenizer::encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const {
  encode_text(part, opens_text, {}, ids);
}

void AddedTokensTokenizer::encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                                          std::vector<std::int32_t>& ids) const {
  if (place == TextPlace::inside && !model_->cuts_text())
    return model_->encode_literal(text, place, unread, ids);  // which refuses it
  const bool space_in_front = place == TextPlace::opens || (place == TextPlace::after_token && added_.legacy);
  encode_text(text, space_in_front, {.special = false, .but = unread}, ids);
}

NamedToken AddedTokensTokenizer::token_named(std::string_view content) const {
  const auto token = std::find_if(added_.tokens.begin(), added_.tokens.end(),
                                  [&](const AddedToken& added) { return added.content == content; });
  if (token == added_.tokens.end()) return model_->token_named(content);
  return {.id = token->id, .strips = token->lstrip || token->rstrip};
}

std::string AddedTokensTokenizer::token_text(std::int32_t id) const {
  const AddedToken* const added = find(id);
  return added ? added->content : model_->token_text(id);
}

void AddedTokensTokenizer::encode_text(std::string_view part, bool space_in_front, const TokensRead& read,
                                       std::vector<std::int32_t>& ids) const {
  const auto has_own_space = [&](std::string_view text) {
    return added_.takes_own_space && (text.starts_with(' ') || text.starts_with("\xE2\x96\x81"));
  };
  std::size_t begin = 0;
  while (begin < part.size()) {
    const auto match = next_match(part, begin, read);
    const std::size_t end = match ? match->begin : part.size();
    if (const std::string_view text = part.substr(begin, end - begin); !text.empty())
      model_->encode_part(text, space_in_front && !has_own_space(text), ids);
    if (!match) return;
    ids.push_back(match->id);
    begin = match->end;
    space_in_front = added_.legacy;
  }
}

const AddedToken* AddedTokensTokenizer::find(std::int32_t id) const {
  const auto place = by_id_.find(id);
  return place == by_id_.end() ? nullptr : &added_.tokens[place->second];
}

void AddedTokensTokenizer::append_bytes(std::int32_t id, bool opens_text, std::string& out) const {
  const AddedToken* token = find(id);
  if (!token) return model_->append_bytes(id, opens_text, out);
  if (!token->special) out += token->content;
}

bool AddedTokensTokenizer::is_control(std::int32_t id) const {
  const AddedToken* token = find(id);
  return token ? token->special : model_->is_control(id);
}

// What follows an added token begins as a text does, so that decoding gives back what was encoded.
bool AddedTokensTokenizer::opens_text_after(std::int32_t id, bool opened) const {
  return find(id) ? added_.legacy : model_->opens_text_after(id, opened);
}

}  // namespace smoe
