// Whole documents, as many as fit a sequence (best_fit.h). One of n ids takes n - 1 positions: its last id is no input.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "data/shards/best_fit.h"
#include "data/shards/samples.h"

namespace smoe {
namespace {

// The loss masks of a stream, a piece at a time.
class TargetScanner {
 public:
  explicit TargetScanner(const TokenStream& stream) : stream_(stream), masked_(stream.has_loss_mask()) {}

  // Whether an id of the document counts, the first aside. To be asked of one document after another.
  bool has_target(const DocumentPlace& document) {
    if (!masked_) return document.tokens() > 1;
    for (std::int64_t at = document.begin + 1; at < document.end;) {
      if (at >= end_) read_on(at);
      const auto first = counts_.begin() + (at - begin_),
                 last = counts_.begin() + (std::min(document.end, end_) - begin_);
      if (std::any_of(first, last, [](std::uint8_t count) { return count != 0; })) return true;
      at = std::min(document.end, end_);
    }
    return false;
  }

 private:
  void read_on(std::int64_t at) {
    constexpr std::int64_t at_once = 1 << 18;
    begin_ = at;
    end_ = std::min(stream_.tokens(), at + at_once);
    counts_.resize(static_cast<std::size_t>(end_ - begin_));
    stream_.read_counts(begin_, counts_);
  }

  const TokenStream& stream_;
  bool masked_;
  std::int64_t begin_ = 0, end_ = 0;  // tokens whose marks are here
  std::vector<std::uint8_t> counts_;
};

class PackedSamples final : public Samples {
 public:
  PackedSamples(const TokenStream& stream, std::int64_t sequence_length)
      : stream_(stream), sequence_length_(sequence_length) {
    packed_ = pack_best_fit(find_lengths(), sequence_length_);
    if (facts_.too_short == stream_.documents())
      throw std::runtime_error(fmt::format("{} has no target: each of its {} documents is of one id, or none",
                                           stream_.directory(), stream_.documents()));
    if (packed_.size() == 0) refuse_masked_targets(stream_);
    ids_.resize(static_cast<std::size_t>(sequence_length_ + 1));
    counts_.resize(ids_.size());
  }

  std::int64_t count() const override { return packed_.size(); }
  std::int64_t tail() const override { return 0; }
  std::int64_t used(std::int64_t sample) const override {
    std::int64_t positions = 0;
    for (const std::uint32_t d : packed_.documents(sample)) positions += stream_.document(d).tokens() - 1;
    return positions;
  }
  PackedFacts facts() const override { return facts_; }

  void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::int32_t> document_start) const override {
    const std::lock_guard lock(mutex_);
    std::size_t at = 0;
    for (const std::uint32_t d : packed_.documents(sample)) {
      const DocumentPlace place = stream_.document(d);
      const auto tokens = static_cast<std::size_t>(place.tokens());
      stream_.read(place.begin, std::span(ids_).first(tokens), std::span(counts_).first(tokens));
      for (std::size_t t = 0; t + 1 < tokens; ++t) {
        inputs[at + t] = static_cast<std::int32_t>(ids_[t]);
        targets[at + t] = counts_[t + 1] ? static_cast<std::int32_t>(ids_[t + 1]) : masked_target;
        document_start[at + t] = static_cast<std::int32_t>(at);
      }
      at += tokens - 1;
    }
    for (; at < inputs.size(); ++at) {
      inputs[at] = padding_id;
      targets[at] = masked_target;
      document_start[at] = static_cast<std::int32_t>(at);
    }
  }

 private:
  // The positions that each document takes; 0: it is left out.
  std::vector<std::uint32_t> find_lengths() {
    if (stream_.documents() >= std::numeric_limits<std::uint32_t>::max())
      throw std::runtime_error(
          fmt::format("{} has {} documents, expected fewer than 2^32 - 1 with data.packing: "
                      "best_fit. Prepare it as several sources",
                      stream_.directory(), stream_.documents()));
    std::vector<std::uint32_t> lengths(static_cast<std::size_t>(stream_.documents()), 0);
    TargetScanner targets(stream_);
    std::int64_t longest = 0, too_long = 0;
    for (std::size_t d = 0; d < lengths.size(); ++d) {
      const DocumentPlace place = stream_.document(static_cast<std::int64_t>(d));
      if (place.tokens() < 2) {
        ++facts_.too_short;
      } else if (!targets.has_target(place)) {
        ++facts_.without_target;
      } else if (place.tokens() - 1 > sequence_length_) {
        ++too_long;
        longest = std::max(longest, place.tokens());
      } else {
        lengths[d] = static_cast<std::uint32_t>(place.tokens() - 1);
        ++facts_.documents;
        facts_.positions += place.tokens() - 1;
      }
    }
    if (too_long > 0)
      throw std::runtime_error(fmt::format(
          "{}: {} of its {} documents are longer than a sequence, and data.packing: best_fit cuts none: the longest has {} ids, "
          "expected at most {} for sequences of {}. Raise data.sequence_length to {} or more, or prepare the data again with "
          "smoe prepare --max-length and --too-long",
          stream_.directory(), too_long, stream_.documents(), longest, sequence_length_ + 1, sequence_length_,
          longest - 1));
    return lengths;
  }

  const TokenStream& stream_;
  std::int64_t sequence_length_;
  PackedFacts facts_;
  PackedSequences packed_;

  mutable std::mutex mutex_;  // for the two below: the ids of the document being read, and whether they count
  mutable std::vector<std::uint32_t> ids_;    // [S + 1]
  mutable std::vector<std::uint8_t> counts_;  // [S + 1]
};

}  // namespace

std::unique_ptr<Samples> samples_of_whole_documents(const TokenStream& stream, std::int64_t sequence_length) {
  return std::make_unique<PackedSamples>(stream, sequence_length);
}

}  // namespace smoe
