#include "data/shards/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "data/shards/permutation.h"

namespace smoe {
namespace {

// floor(n * share / 2^64 + 1/2), exactly. Grows by 0 or 1 with n.
std::int64_t left_of(std::int64_t n, std::uint64_t share) {
  const auto product = static_cast<unsigned __int128>(static_cast<std::uint64_t>(n)) * share;
  return static_cast<std::int64_t>((product + (std::uint64_t{1} << 63)) >> 64);
}

}  // namespace

Sampler::Sampler(std::vector<SourceSize> sources, std::uint64_t seed, bool shuffle, std::int64_t global_batch_size)
    : sources_(std::move(sources)), seed_(seed), shuffle_(shuffle), global_batch_size_(global_batch_size) {
  if (global_batch_size_ < 1)
    throw std::runtime_error(fmt::format("a global batch of {} sequences, expected at least 1", global_batch_size_));
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const SourceSize& source = sources_[i];
    if (source.samples < 1)
      throw std::runtime_error(fmt::format("data source {} has {} samples, expected at least 1", i, source.samples));
    if (!std::isfinite(source.weight) || source.weight < 0)
      throw std::runtime_error(
          fmt::format("data source {} has weight {}, expected a finite number, 0 or more", i, source.weight));
    if (source.weight > 0) active_.push_back(static_cast<std::int32_t>(i));
  }
  if (active_.empty()) throw std::runtime_error("there is nothing to sample from: no data source has a weight above 0");
  build(0, static_cast<std::int32_t>(active_.size()));
}

std::int32_t Sampler::build(std::int32_t first, std::int32_t last) {
  const auto index = static_cast<std::int32_t>(nodes_.size());
  nodes_.push_back({first, last, -1, -1, 0});
  if (last - first == 1) return index;
  const std::int32_t middle = first + (last - first) / 2;
  // Scaled first, so that weights near the largest double do not overflow the sum.
  double largest = 0;
  for (std::int32_t i = first; i < last; ++i) largest = std::max(largest, sources_[active_[i]].weight);
  double left = 0, all = 0;
  for (std::int32_t i = first; i < last; ++i) {
    const double weight = sources_[active_[i]].weight / largest;
    all += weight;
    if (i < middle) left += weight;
  }
  const double share = std::ldexp(left / all, 64);
  const std::int32_t left_node = build(first, middle), right_node = build(middle, last);
  nodes_[index].left = left_node;
  nodes_[index].right = right_node;
  // A share that rounds to all of 2^64 leaves the right half at least 2^-64 of the sequences.
  nodes_[index].left_share =
      share >= 0x1p64 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(share);
  return index;
}

std::int64_t Sampler::sequences_before(std::int64_t step) const {
  if (step < 1 || step > std::numeric_limits<std::int64_t>::max() / global_batch_size_ - 1)
    throw std::logic_error(fmt::format("step {} of the sampler, expected 1 or more", step));
  return (step - 1) * global_batch_size_;
}

SampleRef Sampler::at(std::int64_t step, std::int64_t position) const {
  if (position < 0 || position >= global_batch_size_)
    throw std::logic_error(fmt::format("position {} of a batch of {}", position, global_batch_size_));
  std::int64_t n = sequences_before(step) + position;  // number of the sequence among those of the node
  const Node* node = &nodes_[0];
  while (node->left >= 0) {
    const std::int64_t left = left_of(n, node->left_share);
    const bool goes_left = left_of(n + 1, node->left_share) > left;
    n = goes_left ? left : n - left;
    node = &nodes_[static_cast<std::size_t>(goes_left ? node->left : node->right)];
  }
  const std::int32_t source = active_[static_cast<std::size_t>(node->first)];
  const std::int64_t samples = sources_[static_cast<std::size_t>(source)].samples;
  if (!shuffle_) return {source, n % samples};
  const std::uint64_t key =
      mix64(mix64(mix64(seed_) + static_cast<std::uint64_t>(source)) + static_cast<std::uint64_t>(n / samples));
  return {source, permute(n % samples, samples, key)};
}

std::vector<SampleRef> Sampler::batch(std::int64_t step) const {
  std::vector<SampleRef> refs;
  refs.reserve(static_cast<std::size_t>(global_batch_size_));
  for (std::int64_t position = 0; position < global_batch_size_; ++position) refs.push_back(at(step, position));
  return refs;
}

}  // namespace smoe
