#include "data/text/added_tokens_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"

namespace smoe {

namespace {

// Unicode's White_Space.
bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Where the run of white space that begins at `at` ends.
std::size_t end_of_white_space(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char next = read_utf8(text.substr(at));
    if (next.bytes == 0 || !is_white_space(next.code)) break;
    at += static_cast<std::size_t>(next.bytes);
  }
  return at;
}

// Where the run of white space that ends at `at` begins, at or after `from`.
std::size_t begin_of_white_space(std::string_view text, std::size_t from, std::size_t at) {
  while (at > from) {
    std::size_t begin = at - 1;
    while (begin > from && at - begin < 4 && is_utf8_trail(text[begin])) --begin;
    const Utf8Char last = read_utf8(text.substr(begin, at - begin));
    if (static_cast<std::size_t>(last.bytes) != at - begin || !is_white_space(last.code)) break;
    at = begin;
  }
  return at;
}

std::string identity_of(const SentencePieceTokenizer& model, const AddedTokens& added) {
  const bool legacy = added.legacy || added.tokens.empty(), own_space = added.takes_own_space && !added.tokens.empty();
  std::string text = fmt::format("tokenizer.model {} with added tokens\nlegacy {} own_space {} bos {} eos {}\n",
                                 model.sha256(), legacy, own_space, added.bos, added.eos);
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
    longest_ = std::max(longest_, token.content.size());
    strips_ = strips_ || token.lstrip || token.rstrip;
    first_bytes_.set(static_cast<unsigned char>(token.content.front()));
    add_to_trie(token);
  }
}

void AddedTokensTokenizer::add_to_trie(const AddedToken& token) {
  std::uint32_t node = 0;
  for (const char c : token.content) {
    const auto [edge, fresh] = edges_.try_emplace(std::uint64_t{node} << 8 | static_cast<unsigned char>(c), nodes_);
    if (fresh) ++nodes_;
    node = edge->second;
  }
  ends_[node] = by_id_.at(token.id);
}

// The longest added token that begins at `at`; none: null.
const AddedToken* AddedTokensTokenizer::token_at(std::string_view text, std::size_t at) const {
  const AddedToken* found = nullptr;
  std::uint32_t node = 0;
  for (; at < text.size(); ++at) {
    const auto edge = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (const auto end = ends_.find(node); end != ends_.end()) found = &added_.tokens[end->second];
  }
  return found;
}

std::optional<AddedTokensTokenizer::Match> AddedTokensTokenizer::next_match(std::string_view text,
                                                                            std::size_t from) const {
  for (std::size_t at = from; at < text.size(); ++at) {
    if (!first_bytes_.test(static_cast<unsigned char>(text[at]))) continue;
    const AddedToken* token = token_at(text, at);
    if (!token) continue;
    const std::size_t end = at + token->content.size();
    return Match{token->lstrip ? begin_of_white_space(text, from, at) : at,
                 token->rstrip ? end_of_white_space(text, end) : end, token->id};
  }
  return std::nullopt;
}

// A place is fit where SentencePiece may be cut and no added token is near enough to reach it, be it with the white
// space that it takes along.
std::size_t AddedTokensTokenizer::next_cut(std::string_view text, std::size_t from) const {
  for (std::size_t cut = model_->next_cut(text, from); cut < text.size(); cut = model_->next_cut(text, cut + 1)) {
    const std::size_t left = strips_ ? begin_of_white_space(text, 0, cut) : cut;
    const std::size_t right = strips_ ? end_of_white_space(text, cut) : cut;
    const std::size_t begin = left - std::min(left, longest_), end = std::min(text.size(), right + longest_);
    bool near = false;
    for (std::size_t at = begin; at < end && !near; ++at)
      near = first_bytes_.test(static_cast<unsigned char>(text[at])) && token_at(text, at) != nullptr;
    if (!near) return cut;
  }
  return text.size();
}

void AddedTokensTokenizer::encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const {
  const auto has_own_space = [&](std::string_view text) {
    return added_.takes_own_space && !added_.tokens.empty() &&
           (text.starts_with(' ') || text.starts_with("\xE2\x96\x81"));
  };
  bool space_in_front = opens_text;
  std::size_t begin = 0;
  while (begin < part.size()) {
    const auto match = next_match(part, begin);
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
