#include "data/shards/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "data/shards/token_shard.h"

namespace smoe {

class Dataset::Impl {
 public:
  Impl(const std::string& directory, std::int64_t sequence_length, bool document_masking, const DatasetChecks& checks,
       Tail tail, std::shared_ptr<OpenShards> open_shards)
      : directory_(directory),
        sequence_length_(sequence_length),
        document_masking_(document_masking),
        keeps_tail_(tail == Tail::keep),
        manifest_(read_manifest(directory)) {
    if (!open_shards) open_shards = std::make_shared<OpenShards>();
    if (sequence_length_ < 1 || sequence_length_ > std::int64_t{1} << 31)
      throw std::runtime_error(fmt::format("sequence_length is {}, expected 1 to 2^31", sequence_length_));
    check_fit(checks);
    for (const ShardEntry& entry : manifest_.shards) {
      first_token_.push_back(tokens_);
      shards_.emplace_back(std::filesystem::path(directory) / entry.file, manifest_.info, entry, checks.verified,
                           open_shards);
      tokens_ += entry.tokens;
    }
    check_targets();
    ids_.resize(static_cast<std::size_t>(sequence_length_ + 1));
    counts_.resize(ids_.size());
  }

  void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::int32_t> document_start) const {
    const bool is_tail = sample == samples() && tail() > 0;
    if (sample < 0 || (sample >= samples() && !is_tail))
      throw std::logic_error(fmt::format("{}: sample {} of {}", directory_, sample, samples()));
    const auto length = static_cast<std::size_t>(is_tail ? tail() : sequence_length_);
    if (inputs.size() != length || targets.size() != length || document_start.size() != length)
      throw std::logic_error(fmt::format("{}: spans of {}, {} and {} for sequences of {}", directory_, inputs.size(),
                                         targets.size(), document_start.size(), length));
    const std::lock_guard lock(mutex_);
    read_stream(sample * sequence_length_, length + 1);
    for (std::size_t t = 0; t < length; ++t) {
      inputs[t] = static_cast<std::int32_t>(ids_[t]);
      targets[t] = counts_[t + 1] ? static_cast<std::int32_t>(ids_[t + 1]) : masked_target;
    }
    if (document_masking_)
      mark_documents(sample * sequence_length_, targets, document_start);
    else
      std::fill(document_start.begin(), document_start.end(), 0);
  }

  std::int64_t samples() const { return (tokens_ - 1) / sequence_length_; }
  std::int64_t tail() const { return keeps_tail_ ? (tokens_ - 1) % sequence_length_ : 0; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t sequence_length() const { return sequence_length_; }
  const Manifest& manifest() const { return manifest_; }
  const std::string& directory() const { return directory_; }

 private:
  // What the manifest alone can refuse, before any shard is read.
  void check_fit(const DatasetChecks& checks) const {
    const ShardSetInfo& info = manifest_.info;
    if (!checks.tokenizer_sha256.empty() && !info.tokenizer_sha256.empty() &&
        info.tokenizer_sha256 != checks.tokenizer_sha256)
      throw std::runtime_error(fmt::format(
          "{} was prepared with another tokenizer than the model's: its SHA-256 is {} ({}), the model's is "
          "{}. Prepare the data again with the model's tokenizer (--tokenizer and its directory, which may add "
          "tokens to the file in it)",
          directory_, info.tokenizer_sha256, info.tokenizer_name, checks.tokenizer_sha256));
    if (checks.vocab_size > 0 && info.vocab_size > checks.vocab_size)
      throw std::runtime_error(fmt::format(
          "{} has a vocabulary of {} ({}), the model's is {}. Prepare the data with the model's tokenizer; a model "
          "that is yet to be trained may have a model.vocab_size of {}",
          directory_, info.vocab_size, info.tokenizer_name, checks.vocab_size, info.vocab_size));
    if (keeps_tail_ && manifest_.tokens() < 2)
      throw std::runtime_error(fmt::format("{} holds one token, and nothing to predict", directory_));
    if (!keeps_tail_ && manifest_.tokens() < sequence_length_ + 1)
      throw std::runtime_error(fmt::format(
          "{} holds {} tokens, too few for one sample: a sequence_length of {} needs {}. Prepare more text, "
          "or lower data.sequence_length to at most {}",
          directory_, manifest_.tokens(), sequence_length_, sequence_length_ + 1,
          std::max<std::int64_t>(manifest_.tokens() - 1, 0)));
  }

  // Whether a sample, or the tail, has a target.
  bool has_target(bool document_masking) const {
    const std::int64_t first = 1, last = samples() * sequence_length_ + tail() + 1;  // tokens that are read as targets
    for (std::size_t k = 0; k < shards_.size() && first_token_[k] < last; ++k) {
      const std::int64_t begin = first_token_[k];
      if (shards_[k].has_target(std::max(first - begin, std::int64_t{0}), std::min(shards_[k].tokens(), last - begin),
                                document_masking))
        return true;
    }
    return false;
  }

  void check_targets() const {
    if (has_target(document_masking_)) return;
    const std::string found =
        fmt::format("{} has no target in its {} tokens of {} documents", directory_, tokens_, manifest_.documents());
    if (document_masking_ && has_target(false))
      throw std::runtime_error(fmt::format(
          "{}: each that a sample holds opens a document, which with document masking is no target. Were the ids saved as a "
          "column? Then each is a document of its own: save them as a 1-D array, numpy.save(f, a.ravel()), and prepare it "
          "again (training takes it as it is with data.document_masking: false)",
          found));
    throw std::runtime_error(
        fmt::format("{}: the loss_mask of its shards is 0 wherever a sample has a target. Prepare the data "
                    "again with a mask that is 1 on what is to be learned",
                    found));
  }

  std::size_t shard_of(std::int64_t token) const {
    return static_cast<std::size_t>(std::upper_bound(first_token_.begin(), first_token_.end(), token) -
                                    first_token_.begin() - 1);
  }

  // Tokens and loss mask [first, first + wanted) into ids_ and counts_.
  void read_stream(std::int64_t first, std::size_t wanted) const {
    std::size_t done = 0;
    for (std::size_t k = shard_of(first); done < wanted; ++k) {
      const TokenShard& shard = shards_[k];
      const std::int64_t offset = first + static_cast<std::int64_t>(done) - first_token_[k];
      const std::size_t count = std::min(wanted - done, static_cast<std::size_t>(shard.tokens() - offset));
      shard.read_tokens(offset, std::span(ids_).subspan(done, count));
      const std::span counts = std::span(counts_).subspan(done, count);
      if (shard.has_loss_mask())
        shard.read_loss_mask(offset, counts);
      else
        std::fill(counts.begin(), counts.end(), 1);
      done += count;
    }
  }

  // Goes through the documents that start after the sequence's first token and not after its last target.
  void mark_documents(std::int64_t first, std::span<std::int32_t> targets,
                      std::span<std::int32_t> document_start) const {
    const auto length = static_cast<std::int64_t>(targets.size());
    std::int64_t current = 0;  // where the document of the next positions to fill starts
    const auto fill_until = [&](std::int64_t position) {
      std::fill(document_start.begin() + current, document_start.begin() + position,
                static_cast<std::int32_t>(current));
      current = position;
    };
    for (std::size_t k = shard_of(first); k < shards_.size() && first_token_[k] <= first + length; ++k) {
      const std::span starts = shards_[k].document_offsets().first(shards_[k].document_offsets().size() - 1);
      const auto begin = static_cast<std::uint64_t>(std::max<std::int64_t>(first + 1 - first_token_[k], 0));
      const auto end = static_cast<std::uint64_t>(first + length - first_token_[k]);
      for (auto start = std::lower_bound(starts.begin(), starts.end(), begin); start != starts.end() && *start <= end;
           ++start) {
        fill_until(first_token_[k] + static_cast<std::int64_t>(*start) - first);
        targets[static_cast<std::size_t>(current - 1)] = masked_target;
      }
    }
    fill_until(length);
  }

  std::string directory_;
  std::int64_t sequence_length_;
  bool document_masking_, keeps_tail_;
  Manifest manifest_;
  std::vector<TokenShard> shards_;
  std::vector<std::int64_t> first_token_;  // of each shard, in the stream
  std::int64_t tokens_ = 0;

  mutable std::mutex mutex_;  // for the two below: the tokens of the sample being read, and whether they count
  mutable std::vector<std::uint32_t> ids_;    // [S + 1]
  mutable std::vector<std::uint8_t> counts_;  // [S + 1]
};

Dataset::Dataset(const std::string& directory, std::int64_t sequence_length, bool document_masking,
                 const DatasetChecks& checks, Tail tail, std::shared_ptr<OpenShards> open_shards)
    : impl_(
          std::make_unique<Impl>(directory, sequence_length, document_masking, checks, tail, std::move(open_shards))) {}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

std::int64_t Dataset::samples() const { return impl_->samples(); }
std::int64_t Dataset::tail() const { return impl_->tail(); }
std::int64_t Dataset::tokens() const { return impl_->tokens(); }
std::int64_t Dataset::documents() const { return impl_->manifest().documents(); }
std::int64_t Dataset::sequence_length() const { return impl_->sequence_length(); }
const ShardSetInfo& Dataset::info() const { return impl_->manifest().info; }
const std::string& Dataset::directory() const { return impl_->directory(); }

void Dataset::read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
                   std::span<std::int32_t> document_start) const {
  impl_->read(sample, inputs, targets, document_start);
}

}  // namespace smoe
