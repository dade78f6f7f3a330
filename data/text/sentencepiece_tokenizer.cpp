#include "data/text/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <exception>
#include <new>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"
#include "data/files/printable.h"
#include "data/text/sentencepiece_model.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"
#include "data/text/word_cache.h"

namespace smoe {

namespace {

constexpr std::uint64_t max_file_bytes = 256 << 20;
constexpr char32_t space_symbol = 0x2581;
constexpr std::string_view space_symbol_utf8 = "\xE2\x96\x81";

// Encoded in front of a word that does not open its text, so that the library's space goes in front of this instead.
// A control character that no piece holds beside another character: its own ids stay apart and are dropped.
constexpr char32_t anchor = 1;

char32_t as_written(char32_t code) { return code == space_symbol ? U' ' : code; }

std::uint64_t pair_of(char32_t left, char32_t right) { return std::uint64_t{left} << 32 | right; }

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::filesystem::path& path)
    : file_(read_file(path, max_file_bytes)),
      sha256_(sha256_hex(file_)),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()),
      cache_(std::make_unique<WordCache>()) {
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(
        fmt::format("{} ({} bytes) is not a usable SentencePiece model: {}; fetch or copy the "
                    "tokenizer.model again",
                    path.string(), file_.size(), printable(why)));
  };
  SentencePieceModel model;
  try {
    model = parse_sentencepiece_model(file_);
  } catch (const std::runtime_error& error) {
    refuse(error.what());
  }
  if (model.pieces.empty()) refuse("it holds no pieces");
  std::string problem;
  try {
    if (const auto status = processor_->LoadFromSerializedProto(file_); !status.ok()) problem = status.message();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {  // of the trie inside the library, for pieces that it cannot hold
    problem = fmt::format("SentencePiece failed to load it ({})", error.what());
  }
  if (!problem.empty()) refuse(problem);

  vocab_size_ = processor_->GetPieceSize();
  // What is concluded from the pieces (where a text may be cut) holds for the library's only if they are the same ones.
  if (model.pieces.size() != static_cast<std::size_t>(vocab_size_))
    refuse(fmt::format("it reads as {} pieces, of which SentencePiece takes {}", model.pieces.size(), vocab_size_));
  for (std::size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id] != processor_->IdToPiece(static_cast<int>(id)))
      refuse(fmt::format("piece {} reads as {}, which SentencePiece takes for another", id,
                         quote_for_message(model.pieces[id])));
  const auto id_or_none = [&](int id) { return id >= 0 && id < vocab_size_ ? id : -1; };
  unk_ = id_or_none(processor_->unk_id());
  bos_ = id_or_none(processor_->bos_id());
  eos_ = id_or_none(processor_->eos_id());
  // The library answers unk for a bos or eos piece that the vocabulary lacks.
  if (bos_ >= 0 && !processor_->IsControl(bos_)) bos_ = -1;
  if (eos_ >= 0 && !processor_->IsControl(eos_)) eos_ = -1;
  unk_surface_ = model.unk_surface;
  if (model.denormalizes) refuse("it rewrites decoded text with a denormaliser, which is not supported");
  adds_space_ = model.add_dummy_prefix;
  skips_first_space_ = model.add_dummy_prefix || model.remove_extra_whitespaces;
  joins_pairs_ = model.type == SentencePieceModel::Type::bpe;
  falls_back_to_bytes_ = model.byte_fallback;
  rewrites_texts_ = !model.escape_whitespaces || model.whitespace_is_suffix || model.remove_extra_whitespaces ||
                    model.normalizes_characters;
  find_neighbours(model);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

const std::string& SentencePieceTokenizer::name() const {
  static const std::string name = "sentencepiece";
  return name;
}

const std::string& SentencePieceTokenizer::piece(std::int32_t id) const { return processor_->IdToPiece(id); }

std::int32_t SentencePieceTokenizer::id_of_piece(const std::string& text) const {
  const int id = processor_->PieceToId(text);  // unk where there is none
  return id >= 0 && id < vocab_size_ && processor_->IdToPiece(id) == text ? id : -1;
}

float SentencePieceTokenizer::score(std::int32_t id) const { return processor_->GetScore(id); }

bool SentencePieceTokenizer::is_text(std::int32_t id) const {
  return !processor_->IsUnknown(id) && !processor_->IsControl(id) && !processor_->IsByte(id) &&
         !processor_->IsUnused(id);
}

void SentencePieceTokenizer::find_neighbours(const SentencePieceModel& model) {
  cuts_text_ = joins_pairs_ && falls_back_to_bytes_ && !rewrites_texts_;
  if (!cuts_text_) return;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    // The text of control and byte pieces ("<s>", "<0x0A>") is a name and never matches.
    if (processor_->IsControl(static_cast<int>(id)) || processor_->IsByte(static_cast<int>(id))) continue;
    char32_t left = 0;
    for (std::string_view rest = model.pieces[id]; !rest.empty();) {
      const Utf8Char next = read_utf8(rest);
      const char32_t right = as_written(next.code);
      const bool first = rest.size() == model.pieces[id].size();
      if (next.bytes == 0 || (!first && (left == anchor || right == anchor))) {
        cuts_text_ = false;
        return;
      }
      if (!first) {
        if (left < 128 && right < 128)
          ascii_neighbours_.set(left * 128 + right);
        else
          neighbours_.insert(pair_of(left, right));
      }
      left = right;
      rest.remove_prefix(static_cast<std::size_t>(next.bytes));
    }
  }
  std::vector<std::int32_t> ids;
  encode_whole(std::string(1, static_cast<char>(anchor)), ids);
  anchor_ids_ = ids.size();
}

bool SentencePieceTokenizer::are_neighbours(char32_t left, char32_t right) const {
  left = as_written(left);
  right = as_written(right);
  if (left < 128 && right < 128) return ascii_neighbours_.test(left * 128 + right);
  return neighbours_.contains(pair_of(left, right));
}

std::size_t SentencePieceTokenizer::next_cut(std::string_view text, std::size_t from) const {
  if (!cuts_text_ || from >= text.size()) return text.size();
  // Back to the start of the character in front of `from`.
  std::size_t at = from > 0 ? from - 1 : 0;
  for (int steps = 0; steps < 3 && at > 0 && is_utf8_trail(text[at]); ++steps) --at;
  Utf8Char left = read_utf8(text.substr(at));
  at += static_cast<std::size_t>(std::max(left.bytes, 1));
  while (at < text.size()) {
    const Utf8Char right = read_utf8(text.substr(at));
    // Bytes that are no character are left to the library together with what surrounds them.
    if (at >= from && left.bytes > 0 && right.bytes > 0 && !are_neighbours(left.code, right.code)) return at;
    left = right;
    at += static_cast<std::size_t>(std::max(right.bytes, 1));
  }
  return text.size();
}

void SentencePieceTokenizer::encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const {
  if (part.empty()) return;
  if (!opens_text && !cuts_text_) throw std::logic_error("this model's texts are encoded whole: see next_cut()");
  std::size_t begin = 0;
  if (opens_text) {
    begin = next_cut(part, 0);
    encode_whole(part.substr(0, begin), ids);
  }
  while (begin < part.size()) {
    const std::size_t end = next_cut(part, begin + 1);
    encode_inner(part.substr(begin, end - begin), ids);
    begin = end;
  }
}

// The library reads no control piece from a text, and puts a space in front of whatever it is given.
void SentencePieceTokenizer::encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t>,
                                            std::vector<std::int32_t>& ids) const {
  const bool opens = place != TextPlace::inside;
  if (!opens && !cuts_text_)
    throw std::runtime_error(
        "this kind of tokenizer.model (no byte pair encoding with byte fallback, or a normaliser) cannot encode a text "
        "that goes on behind another");
  encode_part(text, opens, ids);
}

NamedToken SentencePieceTokenizer::token_named(std::string_view content) const {
  const std::int32_t id = id_of_piece(std::string(content));
  return {.id = id >= 0 && is_control(id) ? id : -1};
}

std::string SentencePieceTokenizer::token_text(std::int32_t id) const {
  return is_control(id) ? piece(id) : std::string();
}

void SentencePieceTokenizer::encode_whole(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<int> encoded;
  std::string problem;
  try {
    if (const auto status = processor_->Encode(text, &encoded); !status.ok()) problem = status.message();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    problem = error.what();
  }
  if (!problem.empty())
    throw std::runtime_error(fmt::format("SentencePiece cannot encode a text of {} bytes: {}", text.size(), problem));
  ids.insert(ids.end(), encoded.begin(), encoded.end());
}

void SentencePieceTokenizer::encode_inner(std::string_view word, std::vector<std::int32_t>& ids) const {
  const bool short_enough = word.size() <= WordCache::longest_word;
  if (short_enough && cache_->append(word, ids)) return;
  std::string anchored(1, static_cast<char>(anchor));
  anchored += word;
  std::vector<std::int32_t> word_ids;
  encode_whole(anchored, word_ids);
  if (word_ids.size() < anchor_ids_)
    throw std::runtime_error(
        fmt::format("this SentencePiece model gives {} ids where its parts give {} or more: it is damaged",
                    word_ids.size(), anchor_ids_));
  word_ids.erase(word_ids.begin(), word_ids.begin() + static_cast<std::ptrdiff_t>(anchor_ids_));
  ids.insert(ids.end(), word_ids.begin(), word_ids.end());
  if (short_enough) cache_->insert(word, word_ids);
}

void SentencePieceTokenizer::append_bytes(std::int32_t id, bool opens_text, std::string& out) const {
  if (processor_->IsControl(id)) return;
  if (processor_->IsUnknown(id)) {
    out += unk_surface_;
    return;
  }
  std::string_view piece = processor_->IdToPiece(id);
  if (processor_->IsByte(id)) {
    out += static_cast<char>(std::stoi(std::string(piece.substr(3, 2)), nullptr, 16));  // "<0x0A>"
    return;
  }
  if (opens_text && skips_first_space_ && piece.starts_with(space_symbol_utf8)) piece.remove_prefix(3);
  while (!piece.empty()) {
    const std::size_t space = piece.find(space_symbol_utf8);
    out += piece.substr(0, space);
    if (space == std::string_view::npos) break;
    out += ' ';
    piece.remove_prefix(space + space_symbol_utf8.size());
  }
}

bool SentencePieceTokenizer::is_control(std::int32_t id) const { return processor_->IsControl(id); }

}  // namespace smoe
