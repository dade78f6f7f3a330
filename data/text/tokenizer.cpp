#include "data/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "data/text/added_tokens.h"
#include "data/text/added_tokens_tokenizer.h"
#include "data/text/bpe/bpe_tokenizer.h"
#include "data/text/byte_tokenizer.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/files/files.h"
#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"

namespace smoe {
namespace fs = std::filesystem;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  encode_part(text, true, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  StreamDecoder decoder(*this);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

std::string StreamDecoder::push(std::int32_t id) {
  if (id < 0 || id >= tokenizer_->vocab_size())
    throw std::runtime_error(
        fmt::format("token id {} is outside the tokenizer's vocabulary of {} (ids 0 to {}); "
                    "do the model and the tokenizer belong together?",
                    id, tokenizer_->vocab_size(), tokenizer_->vocab_size() - 1));
  const bool control = tokenizer_->is_control(id);
  if (!control) tokenizer_->append_bytes(id, opens_text_, held_);
  opens_text_ = tokenizer_->opens_text_after(id, opens_text_);
  return take(control);  // no character goes on behind a control id
}

std::string StreamDecoder::finish() {
  opens_text_ = true;
  return take(true);
}

std::string StreamDecoder::take(bool all) {
  std::string text;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Char next = read_utf8(rest);
    if (next.cut && !all) break;
    if (next.bytes > 0) {
      text += rest.substr(0, static_cast<std::size_t>(next.bytes));
      rest.remove_prefix(static_cast<std::size_t>(next.bytes));
    } else {
      text += "\xEF\xBF\xBD";
      rest.remove_prefix(1);
    }
  }
  held_.erase(0, held_.size() - rest.size());
  return text;
}

namespace {

std::unique_ptr<Tokenizer> load_directory(const fs::path& directory) {
  std::vector<TokenizerFile> files = read_tokenizer_files(directory);
  auto model = std::make_unique<SentencePieceTokenizer>(directory / "tokenizer.model");
  AddedTokens added = read_added_tokens(directory.string(), files, *model);
  std::unique_ptr<Tokenizer> tokenizer;
  const bool guesses = added.legacy_is_absent;
  if (added.changes(*model))
    tokenizer = std::make_unique<AddedTokensTokenizer>(std::move(model), std::move(added));
  else
    tokenizer = std::move(model);
  tokenizer->carry(std::move(files));
  if (guesses)
    tokenizer->warn(fmt::format(
        "{}/tokenizer_config.json has no key \"legacy\": read as true, as transformers 4 does, where transformers 5 takes "
        "false; the two put the space in front of texts in other places. Set the key",
        directory.string()));
  return tokenizer;
}

// A file as it stands, whatever lies beside it.
std::unique_ptr<Tokenizer> load_json_alone(const fs::path& path) {
  constexpr std::uint64_t max_bytes = 256 << 20;
  return std::make_unique<BpeTokenizer>(path.parent_path().string(),
                                        std::vector<TokenizerFile>{{"tokenizer.json", read_file(path, max_bytes)}});
}

// None where there is none, or it is of a kind that is not read.
std::optional<std::string> identity_of_json(const fs::path& directory) {
  if (!fs::exists(directory / "tokenizer.json")) return std::nullopt;
  try {
    return BpeTokenizer(directory.string(), read_tokenizer_files(directory)).sha256();
  } catch (const std::runtime_error&) {
    return std::nullopt;
  }
}

// In a directory whose tokenizer is not read: the file that has it; empty: there is none.
fs::path unread_file(const fs::path& directory) {
  for (const char* name : {"tokenizer.json", "vocab.json", "tekken.json"})
    if (fs::exists(directory / name)) return directory / name;
  return {};
}

// Mistral's own directories name a vocabulary by its version: " (tokenizer.model.v3 is one)", or nothing.
std::string versioned_model(const fs::path& directory) {
  std::error_code error;
  std::string found;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
    if (const std::string name = it->path().filename().string(); name.starts_with("tokenizer.model.v"))
      found = std::max(found, name);
  return found.empty() ? found : fmt::format(" ({} is one)", quote_for_message(found));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec) {
  if (spec == "bytes") return std::make_unique<ByteTokenizer>();
  const fs::path path(spec);
  std::error_code ignored;
  const auto refuse_unread = [](const fs::path& file) {
    throw std::runtime_error(fmt::format(
        "{}: {} is not read; put the tokenizer.json or the tokenizer.model that belongs to the model beside it",
        file.string(), file.filename().string()));
  };
  if (!fs::is_directory(path, ignored)) {
    if (path.filename() == "vocab.json" || path.filename() == "tekken.json") refuse_unread(path);
    if (path.extension() == ".json") return load_json_alone(path);
    auto tokenizer = std::make_unique<SentencePieceTokenizer>(path);
    tokenizer->carry({{"tokenizer.model", tokenizer->file()}});
    return tokenizer;
  }
  if (fs::exists(path / "tokenizer.model", ignored)) return load_directory(path);
  if (fs::exists(path / "tokenizer.json", ignored))
    return std::make_unique<BpeTokenizer>(path.string(), read_tokenizer_files(path));
  if (const fs::path unread = unread_file(path); !unread.empty()) refuse_unread(unread);
  throw std::runtime_error(
      fmt::format("{} holds no tokenizer.model and no tokenizer.json; put one there, or name the file itself{}, or use "
                  "'bytes' for the byte vocabulary",
                  spec, versioned_model(path)));
}

TokenizerIdentity tokenizer_identity(const fs::path& directory) {
  const fs::path model = directory / "tokenizer.model";
  if (!fs::exists(model)) {
    if (auto identity = identity_of_json(directory)) return {*identity, {}};
    const fs::path unread = unread_file(directory);
    return {unread.empty() ? std::string() : sha256_file(unread), unread};
  }
  const bool alone = std::none_of(tokenizer_file_names.begin(), tokenizer_file_names.end(), [&](std::string_view name) {
    return changes_tokenizer(name) && fs::exists(directory / name);
  });
  return {alone ? sha256_file(model) : load_tokenizer(directory.string())->sha256(), {}};
}

}  // namespace smoe
