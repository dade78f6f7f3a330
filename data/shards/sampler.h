// Which samples make up a step: a pure function of (seed, step), so that any step is known without replaying those
// before it, and a resumed run needs nothing but its step number.
//
// The sequences of a run are numbered n = (step - 1) * global_batch_size + position. Blending gives each n a source by
// halving the list of sources again and again: of the first n sequences of a node, floor(n * p + 1/2) are the left
// half's, p being the left half's share of the weight. Shares are exact in the long run, and after any number of
// sequences a source is off its share by at most ceil(log2(sources)) / 2. The q-th sequence that a source gives is
// position q mod N of its epoch q / N, and with shuffling a permutation keyed by (seed, source, epoch) turns the
// position into a sample (permutation.h). Every epoch visits every sample once.
#pragma once

#include <cstdint>
#include <vector>

namespace smoe {

struct SourceSize {
  std::int64_t samples = 0;  // at least 1
  double weight = 1.0;       // >= 0, relative to the others
};

struct SampleRef {
  std::int32_t source = 0;
  std::int64_t sample = 0;

  bool operator==(const SampleRef&) const = default;
};

// Errors: std::runtime_error for sizes, weights and batch sizes out of range; std::logic_error for a step below 1 or a
// position outside the batch. Immutable, so thread-safe.
class Sampler {
 public:
  Sampler(std::vector<SourceSize> sources, std::uint64_t seed, bool shuffle, std::int64_t global_batch_size);

  std::int64_t global_batch_size() const { return global_batch_size_; }
  const std::vector<SourceSize>& sources() const { return sources_; }

  // The global batch of a step; the first step is 1.
  std::vector<SampleRef> batch(std::int64_t step) const;
  // Entry `position` of batch(step), without the others.
  SampleRef at(std::int64_t step, std::int64_t position) const;

 private:
  // Of the first n sequences that sources [first, last) give together, those of the left half.
  struct Node {
    std::int32_t first, last;  // range of active_
    std::int32_t left, right;  // indices of nodes_, -1 for a leaf
    std::uint64_t left_share;  // of 2^64
  };
  std::int32_t build(std::int32_t first, std::int32_t last);
  std::int64_t sequences_before(std::int64_t step) const;

  std::vector<SourceSize> sources_;
  std::uint64_t seed_;
  bool shuffle_;
  std::int64_t global_batch_size_;
  std::vector<std::int32_t> active_;  // sources of positive weight
  std::vector<Node> nodes_;           // the root is nodes_[0]
};

}  // namespace smoe
