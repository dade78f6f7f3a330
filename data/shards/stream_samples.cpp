// Sample i of S tokens is tokens [i*S, i*S + S] of the stream: S + 1 of them, so that every input has its target.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/shards/samples.h"

namespace smoe {
namespace {

class StreamSamples final : public Samples {
 public:
  StreamSamples(const TokenStream& stream, std::int64_t sequence_length, bool document_masking, Tail tail)
      : stream_(stream),
        sequence_length_(sequence_length),
        document_masking_(document_masking),
        keeps_tail_(tail == Tail::keep) {
    require_target();
    ids_.resize(static_cast<std::size_t>(sequence_length_ + 1));
    counts_.resize(ids_.size());
  }

  std::int64_t count() const override { return (stream_.tokens() - 1) / sequence_length_; }
  std::int64_t tail() const override { return keeps_tail_ ? (stream_.tokens() - 1) % sequence_length_ : 0; }
  std::int64_t used(std::int64_t sample) const override { return sample < count() ? sequence_length_ : tail(); }
  PackedFacts facts() const override { return {}; }

  void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::int32_t> document_start) const override {
    const std::size_t length = inputs.size();
    const std::lock_guard lock(mutex_);
    stream_.read(sample * sequence_length_, std::span(ids_).first(length + 1), std::span(counts_).first(length + 1));
    for (std::size_t t = 0; t < length; ++t) {
      inputs[t] = static_cast<std::int32_t>(ids_[t]);
      targets[t] = counts_[t + 1] ? static_cast<std::int32_t>(ids_[t + 1]) : masked_target;
    }
    if (document_masking_)
      mark_documents(sample * sequence_length_, targets, document_start);
    else
      std::fill(document_start.begin(), document_start.end(), 0);
  }

 private:
  // Whether a sample, or the tail, has a target.
  bool has_target(bool document_masking) const {
    return stream_.has_target(1, count() * sequence_length_ + tail() + 1, document_masking);
  }

  void require_target() const {
    if (has_target(document_masking_)) return;
    if (document_masking_ && has_target(false))
      throw std::runtime_error(fmt::format(
          "{} has no target in its {} tokens of {} documents: each that a sample holds opens a document, which with document "
          "masking is no target. Were the ids saved as a column? Then each is a document of its own: save them as a 1-D array, "
          "numpy.save(f, a.ravel()), and prepare it again (training takes it as it is with data.document_masking: false)",
          stream_.directory(), stream_.tokens(), stream_.documents()));
    refuse_masked_targets(stream_);
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
    stream_.for_document_starts(first + 1, first + length, [&](std::int64_t start) {
      fill_until(start - first);
      targets[static_cast<std::size_t>(current - 1)] = masked_target;
    });
    fill_until(length);
  }

  const TokenStream& stream_;
  std::int64_t sequence_length_;
  bool document_masking_, keeps_tail_;

  mutable std::mutex mutex_;  // for the two below: the tokens of the sample being read, and whether they count
  mutable std::vector<std::uint32_t> ids_;    // [S + 1]
  mutable std::vector<std::uint8_t> counts_;  // [S + 1]
};

}  // namespace

std::unique_ptr<Samples> samples_of_stream(const TokenStream& stream, std::int64_t sequence_length,
                                           bool document_masking, Tail tail) {
  return std::make_unique<StreamSamples>(stream, sequence_length, document_masking, tail);
}

void refuse_masked_targets(const TokenStream& stream) {
  throw std::runtime_error(fmt::format(
      "{} has no target in its {} tokens of {} documents: the loss_mask of its shards is 0 wherever a sample has a target. "
      "Prepare the data again with a mask that is 1 on what is to be learned",
      stream.directory(), stream.tokens(), stream.documents()));
}

}  // namespace smoe
