#include "data/shards/token_shard.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"

namespace smoe {
namespace {

FileIdentity identity_of(const std::string& path) {
  const File file = File::open_to_read(path);
  struct stat status {};
  if (::fstat(file.fd(), &status) != 0)
    throw std::runtime_error(fmt::format("{}: cannot ask for its size and time: {}", path, std::strerror(errno)));
  return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
          static_cast<std::uint64_t>(status.st_size),
          std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + std::int64_t{status.st_mtim.tv_nsec}};
}

void refuse_difference(const Hdf5File& file, const std::string& what, const std::string& found,
                       const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: {} is {}, the manifest says {}", file.path(), what, found, expected));
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

TokenShard::TokenShard(const std::filesystem::path& path, const ShardSetInfo& info, const ShardEntry& entry,
                       bool verified, std::shared_ptr<OpenShards> open)
    : path_(path.string()),
      sha256_(entry.sha256),
      vocab_size_(info.vocab_size),
      open_(open ? std::move(open) : std::make_shared<OpenShards>(1)) {
  if (!std::filesystem::exists(path))
    throw std::runtime_error(
        fmt::format("{} is missing: the manifest beside it lists it. Copy it back, or prepare the data again", path_));
  identity_ = identity_of(path_);
  // Before HDF5 may open the file, and also where it is open already: it may be another manifest's that was compared.
  if (!verified) open_->verify(path_, identity_, sha256_);
  const std::shared_ptr<const OpenShard> opened = open_->get(path_, identity_, [&] { return open_columns(); });
  check_attributes(opened->file, info);
  tokens_ = opened->tokens.size();
  check_same(opened->file, "the number of tokens", tokens_, entry.tokens);
  has_loss_mask_ = opened->loss_mask.size() > 0;
  if (has_loss_mask_ && opened->loss_mask.size() != tokens_)
    throw std::runtime_error(fmt::format("{}: 'loss_mask' has {} entries, expected one for each of {} tokens", path_,
                                         opened->loss_mask.size(), tokens_));
  read_document_offsets(opened->file, entry);
}

std::shared_ptr<const OpenShard> TokenShard::open_columns() const {
  auto shard = std::make_shared<OpenShard>();
  shard->identity = identity_;
  shard->file = Hdf5File::open_to_read(path_);
  const std::vector<std::string> members =
      shard->file.members();  // refuses links that lead elsewhere, before any is opened
  shard->tokens = shard->file.open_column("tokens", std::array{ColumnType::u16, ColumnType::u32});
  if (std::find(members.begin(), members.end(), "loss_mask") != members.end())
    shard->loss_mask = shard->file.open_column("loss_mask", std::array{ColumnType::u8});
  return shard;
}

std::shared_ptr<const OpenShard> TokenShard::columns() const {
  return open_->get(path_, identity_, [&] {
    if (const FileIdentity now = identity_of(path_); now != identity_) open_->verify(path_, now, sha256_);
    return open_columns();
  });
}

void TokenShard::read_document_offsets(const Hdf5File& file, const ShardEntry& entry) {
  const Hdf5Column column = file.open_column("document_offsets", std::array{ColumnType::u64});
  check_same(file, "the number of documents", column.size() - 1, entry.documents);
  document_offsets_.resize(static_cast<std::size_t>(column.size()));
  column.read(0, std::span(document_offsets_));

  const auto end = static_cast<std::uint64_t>(tokens());
  if (document_offsets_.front() != 0 || document_offsets_.back() != end)
    throw std::runtime_error(fmt::format("{}: 'document_offsets' runs from {} to {}, expected 0 to {}, the token count",
                                         path_, document_offsets_.front(), document_offsets_.back(), end));
  const auto falling =
      std::adjacent_find(document_offsets_.begin(), document_offsets_.end(), std::greater<std::uint64_t>());
  if (falling != document_offsets_.end())
    throw std::runtime_error(
        fmt::format("{}: 'document_offsets' falls from {} to {} at row {}, expected ascending order", path_, falling[0],
                    falling[1], falling - document_offsets_.begin() + 1));
}

void TokenShard::read_tokens(std::int64_t offset, std::span<std::uint32_t> ids) const {
  columns()->tokens.read(offset, ids);
  const auto outside = std::find_if(ids.begin(), ids.end(), [&](std::uint32_t id) { return id >= vocab_size_; });
  if (outside != ids.end())
    throw std::runtime_error(fmt::format("{}: 'tokens' row {} is {}, expected an id below the vocabulary's {}", path_,
                                         offset + (outside - ids.begin()), *outside, vocab_size_));
}

bool TokenShard::has_target(std::int64_t first, std::int64_t last, bool document_masking) const {
  constexpr std::int64_t at_once = 1 << 16;
  const std::span starts = document_offsets().first(document_offsets_.size() - 1);
  auto start = document_masking ? std::lower_bound(starts.begin(), starts.end(), static_cast<std::uint64_t>(first))
                                : starts.end();
  std::vector<std::uint8_t> counts;
  for (std::int64_t at = first; at < last; at += at_once) {
    const std::int64_t end = std::min(last, at + at_once);
    counts.assign(static_cast<std::size_t>(end - at), 1);
    if (has_loss_mask_) read_loss_mask(at, counts);
    for (; start != starts.end() && *start < static_cast<std::uint64_t>(end); ++start)
      counts[static_cast<std::size_t>(*start) - static_cast<std::size_t>(at)] = 0;
    if (std::any_of(counts.begin(), counts.end(), [](std::uint8_t count) { return count != 0; })) return true;
  }
  return false;
}

}  // namespace smoe
