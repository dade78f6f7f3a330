#include "data/token_shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "data/json.h"
#include "data/sha256.h"

namespace smoe {
namespace {

// The file is hashed whole before HDF5 may open it.
Hdf5File open_verified(const std::filesystem::path& path, const ShardEntry& entry, bool verified) {
  if (!std::filesystem::exists(path))
    throw std::runtime_error(
        fmt::format("{} is missing: the manifest beside it lists it. Copy it back, or prepare the data again",
                    path.string()));
  if (verified) return Hdf5File::open_to_read(path);
  const std::string found = sha256_file(path);
  if (found != entry.sha256)
    throw std::runtime_error(
        fmt::format("{} is damaged or was replaced: its SHA-256 is {}, the manifest says {}. Copy it again from where "
                    "it came from, or prepare the data again",
                    path.string(), found, entry.sha256));
  return Hdf5File::open_to_read(path);
}

void refuse_difference(const Hdf5File& file, const std::string& what, const std::string& found,
                       const std::string& expected) {
  throw std::runtime_error(
      fmt::format("{}: {} is {}, the manifest says {}", file.path(), what, found, expected));
}

void check_same(const Hdf5File& file, const std::string& what, std::int64_t found, std::int64_t expected) {
  if (found != expected) refuse_difference(file, what, std::to_string(found), std::to_string(expected));
}

void check_same(const Hdf5File& file, const std::string& what, const std::string& found, const std::string& expected) {
  if (found != expected) refuse_difference(file, what, quote_for_message(found), quote_for_message(expected));
}

void check_attributes(const Hdf5File& file, const ShardSetInfo& info) {
  check_same(file, "format_version", file.read_int_attribute("format_version"), shard_format_version);
  check_same(file, "tokenizer_sha256", file.read_string_attribute("tokenizer_sha256"), info.tokenizer_sha256);
  check_same(file, "tokenizer_name", file.read_string_attribute("tokenizer_name"), info.tokenizer_name);
  check_same(file, "vocab_size", file.read_int_attribute("vocab_size"), info.vocab_size);
  check_same(file, "bos", file.read_int_attribute("bos"), info.bos);
  check_same(file, "eos", file.read_int_attribute("eos"), info.eos);
  check_same(file, "source", file.read_string_attribute("source"), info.source);
}

}  // namespace

ColumnType token_type(std::int64_t vocab_size) { return vocab_size <= 65536 ? ColumnType::u16 : ColumnType::u32; }

void write_shard_attributes(Hdf5File& file, const ShardSetInfo& info) {
  file.write_attribute("format_version", shard_format_version);
  file.write_attribute("tokenizer_sha256", info.tokenizer_sha256);
  file.write_attribute("tokenizer_name", info.tokenizer_name);
  file.write_attribute("vocab_size", info.vocab_size);
  file.write_attribute("bos", std::int64_t{info.bos});
  file.write_attribute("eos", std::int64_t{info.eos});
  file.write_attribute("source", info.source);
}

TokenShard::TokenShard(const std::filesystem::path& path, const ShardSetInfo& info, const ShardEntry& entry, bool verified)
    : file_(open_verified(path, entry, verified)), vocab_size_(info.vocab_size) {
  const std::vector<std::string> members = file_.members();  // refuses links that lead elsewhere, before any is opened
  check_attributes(file_, info);
  tokens_ = file_.open_column("tokens", std::array{ColumnType::u16, ColumnType::u32});
  check_same(file_, "the number of tokens", tokens_.size(), entry.tokens);
  if (std::find(members.begin(), members.end(), "loss_mask") != members.end()) {
    loss_mask_ = file_.open_column("loss_mask", std::array{ColumnType::u8});
    if (loss_mask_.size() != tokens_.size())
      throw std::runtime_error(fmt::format("{}: 'loss_mask' has {} entries, expected one for each of {} tokens",
                                           file_.path(), loss_mask_.size(), tokens_.size()));
  }
  read_document_offsets(entry);
}

void TokenShard::read_document_offsets(const ShardEntry& entry) {
  const Hdf5Column column = file_.open_column("document_offsets", std::array{ColumnType::u64});
  check_same(file_, "the number of documents", column.size() - 1, entry.documents);
  document_offsets_.resize(static_cast<std::size_t>(column.size()));
  column.read(0, std::span(document_offsets_));

  const auto end = static_cast<std::uint64_t>(tokens());
  if (document_offsets_.front() != 0 || document_offsets_.back() != end)
    throw std::runtime_error(fmt::format("{}: 'document_offsets' runs from {} to {}, expected 0 to {}, the token count",
                                         file_.path(), document_offsets_.front(), document_offsets_.back(), end));
  const auto falling =
      std::adjacent_find(document_offsets_.begin(), document_offsets_.end(), std::greater<std::uint64_t>());
  if (falling != document_offsets_.end())
    throw std::runtime_error(fmt::format("{}: 'document_offsets' falls from {} to {} at row {}, expected ascending order",
                                         file_.path(), falling[0], falling[1],
                                         falling - document_offsets_.begin() + 1));
}

void TokenShard::read_tokens(std::int64_t offset, std::span<std::uint32_t> ids) const {
  tokens_.read(offset, ids);
  const auto outside = std::find_if(ids.begin(), ids.end(), [&](std::uint32_t id) { return id >= vocab_size_; });
  if (outside != ids.end())
    throw std::runtime_error(fmt::format("{}: 'tokens' row {} is {}, expected an id below the vocabulary's {}",
                                         file_.path(), offset + (outside - ids.begin()), *outside, vocab_size_));
}

}  // namespace smoe
