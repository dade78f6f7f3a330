#include "data/shards/token_shard_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <list>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "data/files/files.h"
#include "data/files/sha256.h"
#include "data/shards/laid_aside.h"
#include "data/shards/token_shard.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t buffered_tokens = 1 << 16;  // appended together: a call into HDF5 a document would cost more

std::string shard_name(std::size_t index) { return fmt::format("shard-{:05}.h5", index); }

bool is_shard_name(const std::string& name) {
  const std::string_view digits = std::string_view(name).substr(std::min<std::size_t>(6, name.size()));
  return name.starts_with("shard-") && name.ends_with(".h5") && digits.size() >= 5 + 3 &&
         digits.substr(0, digits.size() - 3).find_first_not_of("0123456789") == std::string_view::npos;
}

// A shard under its temporary name, growing.
class GrowingShard {
 public:
  GrowingShard(const fs::path& path, const ShardSetInfo& info)
      : temporary_(path), file_(Hdf5File::create(temporary_.path())) {
    write_shard_attributes(file_, info);
    tokens_ = file_.create_column("tokens", token_type(info.vocab_size));
    entry_.file = path.filename().string();
  }

  std::int64_t tokens() const { return entry_.tokens; }

  // Of a document, which goes on until end_document().
  void append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> mask = {}) {
    // A column is made only for a mask that masks something; the tokens before it all count.
    if (!loss_mask_ && std::find(mask.begin(), mask.end(), 0) != mask.end()) start_loss_mask();
    for (std::size_t done = 0; done < ids.size();) {
      const std::size_t count = std::min(ids.size() - done, buffered_tokens - buffer_.size());
      for (const std::int32_t id : ids.subspan(done, count)) buffer_.push_back(static_cast<std::uint32_t>(id));
      if (loss_mask_) {
        for (std::size_t i = done; i < done + count; ++i) mask_buffer_.push_back(mask.empty() || mask[i] != 0);
      }
      done += count;
      if (buffer_.size() == buffered_tokens) flush();
    }
    entry_.tokens += static_cast<std::int64_t>(ids.size());
  }

  void end_document() {
    entry_.documents += 1;
    document_offsets_.push_back(static_cast<std::uint64_t>(entry_.tokens));
  }

  // Whole and durable under its temporary name; the entry then has its checksum.
  void seal() {
    flush();
    Hdf5Column offsets = file_.create_column("document_offsets", ColumnType::u64);
    offsets.append(std::span<const std::uint64_t>(document_offsets_));
    offsets = {};
    tokens_ = {};
    loss_mask_.reset();
    file_.close();
    File::open_to_update(temporary_.path()).sync();
    entry_.sha256 = sha256_file(temporary_.path());
    document_offsets_ = {};
    buffer_ = {};
    mask_buffer_ = {};
  }

  const ShardEntry& entry() const { return entry_; }
  void commit() { temporary_.commit(); }

 private:
  void flush() {
    tokens_.append(std::span<const std::uint32_t>(buffer_));
    buffer_.clear();
    if (loss_mask_) loss_mask_->append(std::span<const std::uint8_t>(mask_buffer_));
    mask_buffer_.clear();
  }

  void start_loss_mask() {
    flush();
    loss_mask_ = file_.create_column("loss_mask", ColumnType::u8);
    const std::vector<std::uint8_t> ones(buffered_tokens, 1);
    while (loss_mask_->size() < tokens_.size()) {
      const auto missing = static_cast<std::size_t>(tokens_.size() - loss_mask_->size());
      loss_mask_->append(std::span(ones).first(std::min(missing, ones.size())));
    }
  }

  TemporaryPath temporary_;  // declared first: removed after HDF5 has let go of the file
  Hdf5File file_;
  Hdf5Column tokens_;
  std::optional<Hdf5Column> loss_mask_;
  std::vector<std::uint64_t> document_offsets_{0};
  std::vector<std::uint32_t> buffer_;      // tokens that tokens_ does not have yet
  std::vector<std::uint8_t> mask_buffer_;  // the same of loss_mask_
  ShardEntry entry_;
};

}  // namespace

class ShardWriter::Impl {
 public:
  Impl(std::string directory, ShardSetInfo info, std::int64_t shard_tokens, bool overwrite)
      : directory_(std::move(directory)), info_(std::move(info)), shard_tokens_(shard_tokens), overwrite_(overwrite) {
    validate(info_, "token shards for " + directory_.string());
    if (shard_tokens_ < 1)
      throw std::runtime_error(fmt::format("a shard of {} tokens was asked for, expected at least 1", shard_tokens_));
    refuse_existing_manifest();
    directory_made_ = !fs::exists(directory_);
    make_directories(directory_);
  }

  ~Impl() {
    shards_.clear();  // removes what has its temporary name still
    std::error_code ignored;
    if (directory_made_) fs::remove(directory_, ignored);  // does nothing unless it is empty
  }

  void add_document(std::span<const std::int32_t> ids, std::span<const std::uint8_t> mask) {
    if (state_ != State::open) throw std::logic_error("ShardWriter: add_document after finish() or after a failure");
    if (begun_) throw std::logic_error("ShardWriter: add_document within another document");
    if (!mask.empty() && mask.size() != ids.size())
      throw std::logic_error(fmt::format("ShardWriter: a loss mask of {} for {} tokens", mask.size(), ids.size()));
    offered_ += 1;
    if (ids.empty()) return;
    check_ids(ids, 0);

    state_ = State::failed;  // unless all of what follows succeeds
    const auto count = static_cast<std::int64_t>(ids.size());
    if (!shards_.empty() && shards_.back().tokens() + count > shard_tokens_) seal_last();
    growing_shard().append(ids, mask);
    shards_.back().end_document();
    documents_ += 1;
    tokens_ += count;
    state_ = State::open;
  }

  void append(std::span<const std::int32_t> ids) {
    if (state_ != State::open) throw std::logic_error("ShardWriter: append after finish() or after a failure");
    if (ids.empty()) return;
    if (!begun_) offered_ += 1;
    begun_ = true;
    state_ = State::failed;
    check_ids(ids, begun_tokens_);
    begun_tokens_ += static_cast<std::int64_t>(ids.size());
    // As long as the last shard may have room for the whole of it, it is laid aside; else it opens a shard.
    const bool last_is_open = shards_.size() > sealed_;
    if (!placed_ && last_is_open && shards_.back().tokens() + begun_tokens_ <= shard_tokens_) {
      aside_.append(ids);
    } else {
      if (!placed_ && last_is_open) seal_last();
      place();
      shards_.back().append(ids);
    }
    state_ = State::open;
  }

  void end_document() {
    if (state_ != State::open) throw std::logic_error("ShardWriter: end_document after finish() or after a failure");
    if (!begun_) {
      offered_ += 1;
      return;
    }
    state_ = State::failed;
    place();
    shards_.back().end_document();
    documents_ += 1;
    tokens_ += begun_tokens_;
    begun_tokens_ = 0;
    begun_ = placed_ = false;
    state_ = State::open;
  }

  ShardSetSummary finish() {
    if (begun_ && state_ == State::open) throw std::logic_error("ShardWriter: finish() within a document");
    if (state_ != State::open) throw std::logic_error("ShardWriter: finish() twice or after a failure");
    if (tokens_ == 0)
      throw std::runtime_error(
          fmt::format("there is nothing to write to {}: the input has no tokens", directory_.string()));
    state_ = State::failed;
    seal_last();
    refuse_existing_manifest();  // one may have appeared meanwhile
    if (overwrite_) remove_old_set();
    Manifest manifest{info_, {}};
    try {
      for (GrowingShard& shard : shards_) {
        shard.commit();
        manifest.shards.push_back(shard.entry());
      }
      write_manifest(directory_, manifest);
    } catch (...) {
      std::error_code ignored;
      for (const ShardEntry& shard : manifest.shards) fs::remove(directory_ / shard.file, ignored);
      throw;
    }
    state_ = State::finished;
    return {documents_, tokens_, static_cast<std::int64_t>(shards_.size())};
  }

  std::int64_t documents() const { return documents_; }
  std::int64_t tokens() const { return tokens_ + begun_tokens_; }

 private:
  enum class State { open, failed, finished };

  void refuse_existing_manifest() const {
    if (!overwrite_ && fs::exists(manifest_path(directory_)))
      throw std::runtime_error(
          fmt::format("{} holds token shards already ({} exists). Choose another directory, or remove this one first",
                      directory_.string(), manifest_path(directory_).string()));
  }

  // The manifest goes first: without it the directory is no corpus, so a mixture of old and new is never read.
  void remove_old_set() const {
    fs::remove(manifest_path(directory_));
    fsync_directory(directory_);
    std::vector<fs::path> old;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
      if (is_shard_name(entry.path().filename().string())) old.push_back(entry.path());
    }
    for (const fs::path& path : old) fs::remove(path);
  }

  GrowingShard& growing_shard() {
    if (shards_.size() == sealed_) shards_.emplace_back(directory_ / shard_name(shards_.size()), info_);
    return shards_.back();
  }

  // What was laid aside of the document that has begun goes to the last shard, and with it all that follows.
  void place() {
    GrowingShard& shard = growing_shard();
    aside_.take([&](std::span<const std::int32_t> ids) { shard.append(ids); });
    placed_ = true;
  }

  // before: of their document, in front of them.
  void check_ids(std::span<const std::int32_t> ids, std::int64_t before) const {
    const auto outside =
        std::find_if(ids.begin(), ids.end(), [&](std::int32_t id) { return id < 0 || id >= info_.vocab_size; });
    if (outside != ids.end())
      throw std::runtime_error(
          fmt::format("document {} (the first is 1): the token at position {} (from 0) is {}, expected an id from 0 to "
                      "{}, the vocabulary being {}",
                      offered_, before + (outside - ids.begin()), *outside, info_.vocab_size - 1, info_.vocab_size));
  }

  void seal_last() {
    shards_.back().seal();
    sealed_ = shards_.size();
  }

  fs::path directory_;
  ShardSetInfo info_;
  std::int64_t shard_tokens_;
  bool overwrite_;
  bool directory_made_ = false;
  State state_ = State::open;
  std::list<GrowingShard> shards_;  // all but the last are sealed
  std::size_t sealed_ = 0;
  std::int64_t offered_ = 0, documents_ = 0, tokens_ = 0;  // offered_: documents, empty ones too
  // Of a document that comes in pieces: whether there is one, whether the last shard is its own, and how much has come.
  bool begun_ = false, placed_ = false;
  std::int64_t begun_tokens_ = 0;
  LaidAside aside_{directory_};
};

ShardWriter::ShardWriter(std::string directory, ShardSetInfo info, std::int64_t shard_tokens, bool overwrite)
    : impl_(std::make_unique<Impl>(std::move(directory), std::move(info), shard_tokens, overwrite)) {}
ShardWriter::~ShardWriter() = default;
ShardWriter::ShardWriter(ShardWriter&&) noexcept = default;
ShardWriter& ShardWriter::operator=(ShardWriter&&) noexcept = default;

void ShardWriter::add_document(std::span<const std::int32_t> ids, std::span<const std::uint8_t> loss_mask) {
  impl_->add_document(ids, loss_mask);
}
void ShardWriter::append(std::span<const std::int32_t> ids) { impl_->append(ids); }
void ShardWriter::end_document() { impl_->end_document(); }
std::int64_t ShardWriter::documents() const { return impl_->documents(); }
std::int64_t ShardWriter::tokens() const { return impl_->tokens(); }
ShardSetSummary ShardWriter::finish() { return impl_->finish(); }

}  // namespace smoe
