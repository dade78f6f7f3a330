#include "data/text/bpe/bpe_tokenizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <utility>

#include "data/files/json_place.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "data/text/bpe/newer_characters.h"
#include "data/text/white_space.h"
#include "data/text/word_cache.h"

namespace smoe {
namespace {

constexpr std::int64_t largest_id = std::numeric_limits<std::int32_t>::max() - 1;
constexpr std::size_t longest_content = 1024;  // bytes
// The largest in use have 35 MB and half a million pieces.
constexpr JsonLimits json_limits{.max_bytes = 96 << 20, .max_values = 8'000'000};

const TokenizerFile* find_file(const std::vector<TokenizerFile>& files, std::string_view name) {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const TokenizerFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

// Bytes that form no character become U+FFFD, as Python reads them.
std::string valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const int bytes = read_utf8(text).bytes;
    if (bytes > 0)
      valid += text.substr(0, static_cast<std::size_t>(bytes));
    else
      valid += "\xEF\xBF\xBD";
    text.remove_prefix(static_cast<std::size_t>(std::max(bytes, 1)));
  }
  return valid;
}

const Json& value_or_null(const Json& document, const char* key) {
  static const Json null;
  const auto found = document.find(key);
  return found == document.end() ? null : *found;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// A part of a word, for tokens that stand alone: what Rust's regular expressions call \w.
bool is_word_sign(char32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(stand_in_of(c)))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    case UTF8PROC_CATEGORY_SO:  // letters in circles and squares
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
    default: return false;
  }
}

// Whether what stands at these places goes on as a word at its end, or its beginning.
bool is_inside_word(std::string_view text, std::size_t begin, std::size_t end) {
  std::size_t before = begin;
  while (before > 0 && is_utf8_trail(text[--before])) {
  }
  return (begin > 0 && is_word_sign(read_utf8(text.substr(before)).code)) ||
         (end < text.size() && is_word_sign(read_utf8(text.substr(end)).code));
}

}  // namespace

BpeTokenizer::BpeTokenizer(const std::string& directory, std::vector<TokenizerFile> files)
    : cache_(std::make_unique<WordCache>()) {
  carry(std::move(files));
  const TokenizerFile* const file = find_file(this->files(), "tokenizer.json");
  if (!file) throw std::logic_error("a BpeTokenizer without its tokenizer.json");
  const std::string where = (std::filesystem::path(directory) / "tokenizer.json").string();
  const Json document = parse_json(file->bytes, where, json_limits);
  read_placed(file->bytes, where, [&] { read_steps(document, where); });
  if (!model_->out_of_order().empty()) warn(with_place_in_json(model_->out_of_order(), where, file->bytes));
  read_ends(directory);
  if (normalizer_.is_local() && pre_tokenizer_.cuts_at_spaces())
    cuts_ = Cuts::at_spaces;
  else if (pre_tokenizer_.never_splits() && normalizer_.only_moves_spaces() && model_->falls_back_to_bytes() &&
           !model_->takes_whole_words())
    cuts_ = Cuts::between_strangers;
  space_ = normalizer_.changes_nothing() ? pre_tokenizer_.space() : normalizer_.space();
  sha256_ = sha256_hex(fmt::format("tokenizer.json {} bos {} eos {}\n", sha256_hex(file->bytes), bos_, eos_));
}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::read_steps(const Json& document, const std::string& where) {
  const JsonReader reader(document, where);
  normalizer_ = Normalizer(value_or_null(document, "normalizer"), where);
  pre_tokenizer_ = PreTokenizer(value_or_null(document, "pre_tokenizer"), where);
  model_ = std::make_unique<BpeModel>(reader.require_object("model").object(), where, pre_tokenizer_.is_byte_level());
  decoder_ = PieceDecoder(value_or_null(document, "decoder"), where, pre_tokenizer_.is_byte_level());
  vocab_size_ = model_->vocab_size();
  read_added_tokens(document, where);
}

const std::string& BpeTokenizer::name() const {
  static const std::string name = "tokenizer.json";
  return name;
}

const std::string& BpeTokenizer::file() const {
  static const std::string none;
  return none;
}

void BpeTokenizer::read_added_tokens(const Json& document, const std::string& where) {
  const Json& list = value_or_null(document, "added_tokens");
  if (list.is_null()) return;
  const JsonReader reader(document, where);
  std::vector<bool> is_normalized;
  for (const Json& entry : reader.require_array("added_tokens")) {
    const std::string here = fmt::format("{}: added_tokens[{}]", where, is_normalized.size());
    const JsonReader token(entry, here);
    Token read{.id = static_cast<std::int32_t>(token.require_int("id", 0, largest_id)),
               .content = token.require_string("content"),
               .special = token.optional_bool("special").value_or(false),
               .lstrip = token.optional_bool("lstrip").value_or(false),
               .rstrip = token.optional_bool("rstrip").value_or(false),
               .single_word = token.optional_bool("single_word").value_or(false)};
    const auto refuse = [&](const std::string& why) {
      throw std::runtime_error(fmt::format("{}: id {} ({}): {}", here, read.id, quote_for_message(read.content), why));
    };
    if (read.content.empty() || read.content.size() > longest_content)
      refuse(fmt::format("found {} bytes, expected 1 to {}", read.content.size(), longest_content));
    if (read.id < model_->vocab_size() && !model_->piece(read.id).empty() && model_->piece(read.id) != read.content)
      refuse(fmt::format("the vocabulary has {} under this id", quote_for_message(model_->piece(read.id))));
    if (const std::int32_t other = model_->id_of(read.content); other >= 0 && other != read.id)
      refuse(fmt::format("the vocabulary has it under the id {}", other));
    if (const auto known = by_id_.find(read.id); known != by_id_.end())
      refuse(fmt::format("stands there twice, also as {}", quote_for_message(tokens_[known->second].content)));
    const bool normalized = token.optional_bool("normalized").value_or(!read.special);
    if (normalized && normalizer_.apply(read.content, true) != read.content)
      refuse("is normalized, and the normalizer rewrites it, which is not supported");
    if (normalized && !normalizer_.is_local() && !normalizer_.changes_nothing())
      refuse("is normalized, and the normalizer moves spaces, which is not supported");
    by_id_[read.id] = tokens_.size();
    vocab_size_ = std::max<std::int64_t>(vocab_size_, read.id + 1);
    strips_ = strips_ || read.lstrip || read.rstrip;
    is_normalized.push_back(normalized);
    tokens_.push_back(std::move(read));
  }
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    (is_normalized[i] && !normalizer_.changes_nothing() ? normalized_ : raw_).add(tokens_[i].content, i);
}

// bos, eos: by the files beside it. What else they say must not contradict it.
void BpeTokenizer::read_ends(const std::string& directory) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {  // the second overrules
    const TokenizerFile* const file = find_file(files(), name);
    if (!file) continue;
    const std::string where = (std::filesystem::path(directory) / name).string();
    const Json document = parse_json(file->bytes, where);
    if (!document.is_object()) throw std::runtime_error(where + ": found no object");
    read_placed(file->bytes, where, [&] {
      if (const std::int32_t id = find_special(document, "bos_token", where); id >= 0) bos_ = id;
      if (const std::int32_t id = find_special(document, "eos_token", where); id >= 0) eos_ = id;
      if (std::string_view(name) == "tokenizer_config.json") check_config(document, where);
    });
  }
}

std::int32_t BpeTokenizer::find_special(const Json& document, const char* key, const std::string& where) const {
  const Json& value = value_or_null(document, key);
  if (value.is_null()) return -1;
  const std::string content = value.is_object() ? JsonReader(value, where + ": " + key).require_string("content")
                                                : json_string(value, where + ": " + key);
  for (const Token& token : tokens_)
    if (token.content == content) return token.id;
  if (const std::int32_t id = model_->id_of(content); id >= 0) return id;
  throw std::runtime_error(fmt::format("{}: {}: found {}, which is no token of the tokenizer.json beside it", where,
                                       key, quote_for_message(content)));
}

void BpeTokenizer::check_config(const Json& config, const std::string& where) const {
  const Json& listed = value_or_null(config, "added_tokens_decoder");
  if (listed.is_object())
    for (const auto& [key, entry] : listed.items()) {
      const std::string content = JsonReader(entry, where + ": added_tokens_decoder").require_string("content");
      const bool known = std::any_of(tokens_.begin(), tokens_.end(), [&](const Token& token) {
        return token.content == content && std::to_string(token.id) == key;
      });
      if (!known)
        throw std::runtime_error(
            fmt::format("{}: added_tokens_decoder: {}: found {}, which the tokenizer.json beside it does not add",
                        where, quote_for_message(key), quote_for_message(content)));
    }
}

BpeTokenizer::Match BpeTokenizer::next_match(const TokenTrie& trie, std::string_view text, std::size_t from,
                                             const TokensRead& read) const {
  const auto is_read = [&](std::size_t place) { return read.has(tokens_[place].id, tokens_[place].special); };
  for (std::size_t at = from; !trie.empty() && at < text.size(); ++at) {
    const auto found = trie.find(text, at, is_read);
    if (!found) continue;
    const Token& token = tokens_[*found];
    const std::size_t end = at + token.content.size();
    if (token.single_word && is_inside_word(text, at, end)) {
      at = end - 1;
      continue;
    }
    return {token.lstrip ? begin_of_white_space(text, from, at) : at,
            token.rstrip ? end_of_white_space(text, end) : end, &token};
  }
  return {text.size(), text.size(), nullptr};
}

bool BpeTokenizer::is_near_token(std::string_view text, std::size_t cut) const {
  const std::size_t longest = std::max(raw_.longest(), normalized_.longest()) + 1;
  const std::size_t left = strips_ ? begin_of_white_space(text, 0, cut) : cut;
  const std::size_t right = strips_ ? end_of_white_space(text, cut) : cut;
  const std::size_t end = std::min(text.size(), right + longest);
  for (std::size_t at = left - std::min(left, longest); at < end; ++at)
    if (raw_.find(text, at) || normalized_.find(text, at)) return true;
  return false;
}

std::size_t BpeTokenizer::next_cut(std::string_view text, std::size_t from) const {
  if (cuts_ == Cuts::nowhere) return text.size();
  const auto as_in_words = [&](char32_t c) { return c == U' ' ? space_ : c; };
  for (std::size_t at = std::max<std::size_t>(from, 1); at + 1 < text.size(); ++at) {
    bool fits = false;
    if (cuts_ == Cuts::at_spaces) {
      fits = text[at] == ' ' && is_letter(text[at - 1]) && is_letter(text[at + 1]);
    } else {
      if (is_utf8_trail(text[at])) continue;
      std::size_t begin = at - 1;
      for (int steps = 0; steps < 3 && begin > 0 && is_utf8_trail(text[begin]); ++steps) --begin;
      const Utf8Char left = read_utf8(text.substr(begin, at - begin)), right = read_utf8(text.substr(at));
      fits = static_cast<std::size_t>(left.bytes) == at - begin && right.bytes > 0 &&
             !model_->are_neighbours(as_in_words(left.code), as_in_words(right.code));
    }
    if (fits && !is_near_token(text, at)) return at;
  }
  return text.size();
}

void BpeTokenizer::encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const {
  encode_text(part, opens_text, opens_text, {}, ids);
}

void BpeTokenizer::encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                                  std::vector<std::int32_t>& ids) const {
  encode_text(text, place != TextPlace::inside, place == TextPlace::opens, {.special = false, .but = unread}, ids);
}

NamedToken BpeTokenizer::token_named(std::string_view content) const {
  const auto token =
      std::find_if(tokens_.begin(), tokens_.end(), [&](const Token& added) { return added.content == content; });
  if (token == tokens_.end()) return {};
  return {.id = token->id, .strips = token->lstrip || token->rstrip};
}

std::string BpeTokenizer::token_text(std::int32_t id) const {
  const auto token = by_id_.find(id);
  return token == by_id_.end() ? std::string() : tokens_[token->second].content;
}

void BpeTokenizer::encode_text(std::string_view part, bool opens_segment, bool opens_text, const TokensRead& read,
                               std::vector<std::int32_t>& ids) const {
  std::string made_valid;
  if (!is_valid_utf8(part)) part = made_valid = valid_utf8(part);
  for (std::size_t at = 0; at < part.size();) {
    const Match match = next_match(raw_, part, at, read);
    if (match.begin > at)
      encode_segment(part.substr(at, match.begin - at), opens_segment, opens_text && at == 0, read, ids);
    if (match.token) ids.push_back(match.token->id);
    opens_segment = true;
    at = match.end;
  }
}

void BpeTokenizer::encode_segment(std::string_view segment, bool opens_segment, bool opens_text, const TokensRead& read,
                                  std::vector<std::int32_t>& ids) const {
  std::string text = normalizer_.apply(segment, opens_segment);
  if (normalized_.empty()) return encode_words(std::move(text), opens_segment, opens_text, ids);
  for (std::size_t at = 0; at < text.size();) {
    const Match match = next_match(normalized_, text, at, read);
    if (match.begin > at)
      encode_words(text.substr(at, match.begin - at), opens_segment || at > 0, opens_text && at == 0, ids);
    if (match.token) ids.push_back(match.token->id);
    at = match.end;
  }
}

void BpeTokenizer::encode_words(std::string text, bool opens_segment, bool opens_text,
                                std::vector<std::int32_t>& ids) const {
  const Words words = pre_tokenizer_.cut(std::move(text), opens_segment, opens_text);
  for (std::size_t i = 0; i < words.words.size(); ++i) {
    std::string_view word = words.word(i);
    // Nothing is joined across two characters that no piece holds side by side, so what lies between is encoded alone.
    while (cuts_ == Cuts::between_strangers && !word.empty()) {
      Utf8Char left = read_utf8(word);
      auto end = static_cast<std::size_t>(left.bytes);
      while (end < word.size()) {
        const Utf8Char right = read_utf8(word.substr(end));
        if (!model_->are_neighbours(left.code, right.code)) break;
        left = right;
        end += static_cast<std::size_t>(right.bytes);
      }
      encode_word(word.substr(0, end), ids);
      word.remove_prefix(end);
    }
    if (!word.empty()) encode_word(word, ids);
  }
}

void BpeTokenizer::encode_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  const bool short_enough = word.size() <= WordCache::longest_word;
  if (short_enough && cache_->append(word, ids)) return;
  std::vector<std::int32_t> own;
  model_->encode_word(word, own);
  ids.insert(ids.end(), own.begin(), own.end());
  if (short_enough) cache_->insert(word, own);
}

void BpeTokenizer::append_bytes(std::int32_t id, bool opens_text, std::string& out) const {
  if (const auto token = by_id_.find(id); token != by_id_.end()) {
    if (!tokens_[token->second].special) out += tokens_[token->second].content;
    return;
  }
  if (id >= model_->vocab_size()) return;  // a gap in front of the added tokens
  if (const int byte = model_->byte_of(id); byte >= 0)
    out += static_cast<char>(byte);
  else
    decoder_.append(model_->piece(id), opens_text, out);
}

bool BpeTokenizer::is_control(std::int32_t id) const {
  const auto token = by_id_.find(id);
  return token != by_id_.end() && tokens_[token->second].special;
}

}  // namespace smoe
