#include "data/text/bpe/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <queue>
#include <stdexcept>
#include <utility>

#include "data/files/utf8.h"
#include "data/text/bpe/byte_letters.h"
#include "data/text/tokenizer_json.h"

namespace smoe {
namespace {

constexpr std::int64_t most_pieces = 4 << 20;
constexpr std::size_t short_word = 48;  // symbols: below, looking at all pairs is quicker than keeping them in order

std::uint64_t key_of_pair(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

std::size_t place_of(std::uint64_t pair, std::size_t size) {
  pair ^= pair >> 31;
  pair *= 0x9E3779B97F4A7C15u;
  return static_cast<std::size_t>(pair >> 20) & (size - 1);
}

std::string utf8_of(char32_t code) {
  std::string text;
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else {
    text += static_cast<char>(0xC0 | code >> 6);
    text += static_cast<char>(0x80 | (code & 0x3F));
  }
  return text;
}

}  // namespace

void BpeModel::refuse(const std::string& key, const std::string& what) const {
  throw std::runtime_error(fmt::format("{}: model: {}: {}", where_, key, what));
}

BpeModel::BpeModel(const Json& json, const std::string& where, bool byte_level)
    : where_(where), byte_level_(byte_level) {
  byte_ids_.fill(-1);
  ascii_ids_.fill(-1);
  const JsonReader model(json, where + ": model");
  if (const std::string type = model.optional_string("type").value_or("none"); type != "BPE")
    refuse("type", fmt::format("found {}, expected \"BPE\": others are not supported", quote_for_message(type)));
  if (const auto dropout = model.optional_number("dropout"); dropout && *dropout != 0)
    refuse("dropout", fmt::format("found {}, expected null: sampled encodings are not supported", *dropout));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const auto affix = model.optional_string(key); affix && !affix->empty())
      refuse(key, fmt::format("found {}, expected null: words are not marked so here", quote_for_message(*affix)));
  ignore_merges_ = model.optional_bool("ignore_merges").value_or(false);
  fuse_unk_ = model.optional_bool("fuse_unk").value_or(false);
  read_vocabulary(model);
  read_bytes(model);
  read_merges(model);
  if (const auto unk = model.optional_string("unk_token")) {
    unk_ = id_of(*unk);
    if (unk_ < 0)
      refuse("unk_token", fmt::format("found {}, which is no piece of the vocabulary", quote_for_message(*unk)));
  }
}

void BpeModel::read_vocabulary(const JsonReader& model) {
  const JsonReader vocabulary = model.require_object("vocab");
  if (vocabulary.object().empty()) refuse("vocab", "found no pieces");
  for (const auto& [text, value] : vocabulary.object().items()) {
    const auto id = static_cast<std::size_t>(vocabulary.require_int(text, 0, most_pieces - 1));
    if (text.empty()) continue;  // of use to nobody
    if (id >= pieces_.size()) pieces_.resize(id + 1);
    if (!pieces_[id].empty())
      refuse("vocab", fmt::format("{}: found the id {}, which {} has too", quote_for_message(text), id,
                                  quote_for_message(pieces_[id])));
    pieces_[id] = text;
    ids_.emplace(text, static_cast<std::int32_t>(id));
  }
}

void BpeModel::read_bytes(const JsonReader& model) {
  for (int c = 0; c < 128; ++c)
    ascii_ids_[static_cast<std::size_t>(c)] = id_of(std::string_view(std::string(1, static_cast<char>(c))));
  if (byte_level_) {
    const auto letters = byte_letters();
    for (std::size_t byte = 0; byte < 256; ++byte) byte_ids_[byte] = id_of(utf8_of(letters[byte]));
  } else if (model.optional_bool("byte_fallback").value_or(false)) {
    byte_fallback_ = true;
    for (std::size_t byte = 0; byte < 256; ++byte) byte_ids_[byte] = id_of(fmt::format("<0x{:02X}>", byte));
  }
}

void BpeModel::read_merges(const JsonReader& model) {
  const Json& merges = model.require_array("merges");
  std::size_t size = 16;
  while (size < 2 * merges.size()) size *= 2;
  merges_.resize(size);
  std::vector<JoinedPiece> joins;
  joins.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto parts = read_merge(merges[rank]);
    if (!parts)
      refuse("merges", fmt::format("entry {} is no pair of pieces, expected \"a b\" or [\"a\", \"b\"]", rank));
    const auto& [left, right] = *parts;
    const std::int32_t a = id_of(left), b = id_of(right), joined = id_of(left + right);
    if (a < 0 || b < 0 || joined < 0)
      refuse("merges", fmt::format("entry {} ({} and {}): {} is no piece of the vocabulary", rank,
                                   quote_for_message(left), quote_for_message(right),
                                   quote_for_message(a < 0   ? left
                                                     : b < 0 ? right
                                                             : left + right)));
    const std::uint64_t pair = key_of_pair(a, b);
    std::size_t place = place_of(pair, size);
    while (merges_[place].id >= 0 && merges_[place].pair != pair) place = (place + 1) & (size - 1);
    if (merges_[place].id >= 0)
      refuse("merges", fmt::format("entry {} ({} and {}) stands there twice", rank, quote_for_message(left),
                                   quote_for_message(right)));
    joins.push_back({a, b, joined});
    merges_[place] = {pair, static_cast<std::uint32_t>(rank), joined};
    if (!byte_level_) add_neighbours(left + right);
  }
  check_order(joins);
}

// A piece that is joined of others needs one merge at least whose parts are there by then: letters, or what earlier merges
// make. (Lists made of a tokenizer.model have every split of a piece, also those whose parts come later.)
void BpeModel::check_order(const std::vector<JoinedPiece>& joins) {
  std::vector<bool> is_joined(pieces_.size()), is_made(pieces_.size());
  for (const JoinedPiece& join : joins) is_joined[static_cast<std::size_t>(join.id)] = true;
  const auto is_there = [&](std::int32_t id) {
    return is_made[static_cast<std::size_t>(id)] || !is_joined[static_cast<std::size_t>(id)];
  };
  for (const JoinedPiece& join : joins)
    if (is_there(join.left) && is_there(join.right)) is_made[static_cast<std::size_t>(join.id)] = true;
  std::size_t first = joins.size(), count = 0;
  for (std::size_t rank = joins.size(); rank-- > 0;)
    if (!is_made[static_cast<std::size_t>(joins[rank].id)]) {
      first = rank;
      ++count;
    }
  if (count == 0) return;
  const JoinedPiece& join = joins[first];
  out_of_order_ = fmt::format(
      "{}: model: merges: entry {} joins {} and {}, of which one is made by a later entry alone, and so are {} in all: the list "
      "is out of order, and is followed as it stands",
      where_, first, quote_for_message(piece(join.left)), quote_for_message(piece(join.right)), count);
}

void BpeModel::add_neighbours(std::string_view piece) {
  char32_t left = 0;
  for (bool first = true; !piece.empty(); first = false) {
    const Utf8Char next = read_utf8(piece);
    if (next.bytes == 0)
      refuse("vocab", fmt::format("found the piece {}, which is no UTF-8", quote_for_message(piece)));
    if (!first && left < 128 && next.code < 128)
      ascii_neighbours_.set(left * 128 + next.code);
    else if (!first)
      neighbours_.insert(std::uint64_t{left} << 32 | next.code);
    left = next.code;
    piece.remove_prefix(static_cast<std::size_t>(next.bytes));
  }
}

bool BpeModel::are_neighbours(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_neighbours_.test(left * 128 + right);
  return neighbours_.contains(std::uint64_t{left} << 32 | right);
}

std::int32_t BpeModel::id_of(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? -1 : found->second;
}

bool BpeModel::falls_back_to_bytes() const {
  return byte_fallback_ && std::all_of(byte_ids_.begin(), byte_ids_.end(), [](std::int32_t id) { return id >= 0; });
}

int BpeModel::byte_of(std::int32_t id) const {
  if (!byte_fallback_) return -1;
  const auto found = std::find(byte_ids_.begin(), byte_ids_.end(), id);
  return found == byte_ids_.end() ? -1 : static_cast<int>(found - byte_ids_.begin());
}

const BpeModel::Merge* BpeModel::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = key_of_pair(left, right);
  for (std::size_t place = place_of(pair, merges_.size()); merges_[place].id >= 0;
       place = (place + 1) & (merges_.size() - 1))
    if (merges_[place].pair == pair) return &merges_[place];
  return nullptr;
}

void BpeModel::start_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  if (byte_level_) {
    for (const char c : word)
      if (const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)]; id >= 0)
        symbols.push_back(id);
      else if (unk_ >= 0 && !(fuse_unk_ && !symbols.empty() && symbols.back() == unk_))
        symbols.push_back(unk_);
    return;
  }
  while (!word.empty()) {
    const Utf8Char next = read_utf8(word);
    const auto bytes = static_cast<std::size_t>(std::max(next.bytes, 1));
    const std::string_view character = word.substr(0, bytes);
    word.remove_prefix(bytes);
    std::int32_t id = next.bytes == 1 ? ascii_ids_[next.code] : id_of(character);
    if (id >= 0) {
      symbols.push_back(id);
      continue;
    }
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (byte_fallback_ && std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; }))
      for (const char c : character) symbols.push_back(byte_id(c));
    else if (unk_ >= 0 && !(fuse_unk_ && !symbols.empty() && symbols.back() == unk_))
      symbols.push_back(unk_);
  }
}

void BpeModel::join_short(std::vector<std::int32_t>& symbols) const {
  while (symbols.size() > 1) {
    const Merge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      if (const Merge* merge = find_merge(symbols[i], symbols[i + 1]); merge && (!best || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    if (!best) return;
    symbols[at] = best->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

void BpeModel::join_long(std::vector<std::int32_t>& symbols) const {
  constexpr std::int32_t gone = -1;
  const auto count = static_cast<std::int64_t>(symbols.size());
  std::vector<std::int64_t> before(symbols.size()), behind(symbols.size());
  for (std::int64_t i = 0; i < count; ++i) {
    before[static_cast<std::size_t>(i)] = i - 1;
    behind[static_cast<std::size_t>(i)] = i + 1;
  }
  struct Candidate {
    std::uint32_t rank;
    std::int64_t at;
    std::uint64_t pair;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // the least rank comes first, then the leftmost
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::priority_queue<Candidate> queue;
  const auto consider = [&](std::int64_t left, std::int64_t right) {
    if (left < 0 || right >= count) return;
    const std::int32_t a = symbols[static_cast<std::size_t>(left)], b = symbols[static_cast<std::size_t>(right)];
    if (const Merge* merge = find_merge(a, b)) queue.push({merge->rank, left, merge->pair, merge->id});
  };
  for (std::int64_t i = 0; i + 1 < count; ++i) consider(i, i + 1);
  while (!queue.empty()) {
    const Candidate next = queue.top();
    queue.pop();
    const auto at = static_cast<std::size_t>(next.at);
    const std::int64_t right = behind[at];
    // One of the two may have been joined with another since.
    if (symbols[at] == gone || right >= count ||
        key_of_pair(symbols[at], symbols[static_cast<std::size_t>(right)]) != next.pair)
      continue;
    symbols[at] = next.id;
    symbols[static_cast<std::size_t>(right)] = gone;
    behind[at] = behind[static_cast<std::size_t>(right)];
    if (behind[at] < count) before[static_cast<std::size_t>(behind[at])] = next.at;
    consider(before[at], next.at);
    consider(next.at, behind[at]);
  }
  std::erase(symbols, gone);
}

void BpeModel::encode_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    std::int32_t id = -1;
    if (!byte_level_) {
      id = id_of(word);
    } else {
      std::string letters;
      static constexpr auto by_byte = byte_letters();
      for (const char c : word) letters += utf8_of(by_byte[static_cast<unsigned char>(c)]);
      id = id_of(letters);
    }
    if (id >= 0) return ids.push_back(id);
  }
  std::vector<std::int32_t> symbols;
  symbols.reserve(word.size());
  start_symbols(word, symbols);
  symbols.size() <= short_word ? join_short(symbols) : join_long(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

}  // namespace smoe
