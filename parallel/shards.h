// Which part of each flat buffer this rank owns (ZeRO stage 1: arXiv 1910.02054). The ranks that hold replicas of a
// buffer divide it: each keeps the optimizer's state of its part, updates it, and writes it to checkpoints.
//
// A buffer is cut into buckets, from its end, because backward finishes the last parameters first; a rank owns an equal
// run of each bucket. So a bucket can be reduced as soon as its parameters' gradients are complete.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "parallel/parameter.h"

namespace smoe {

struct Bucket {
  std::size_t flat = 0;          // index into ParameterSet::flat_buffers()
  std::int64_t begin = 0, size = 0;     // elements of the flat buffer
  std::int64_t owned = 0, owned_size = 0;  // what this rank owns of them: size / group size, from here on
  std::int64_t shard = 0;        // where that lies in this rank's shard of the flat buffer
  std::size_t first_parameter = 0;  // the bucket is complete when this parameter and all after it are
};

class Shards {
 public:
  static constexpr std::int64_t default_bucket_elements = std::int64_t{4} << 20;  // 16 MiB

  // parameters must have been allocated. A group of one has one bucket a buffer, which it owns whole.
  Shards(const ParameterSet& parameters, const Mesh& mesh, std::int64_t bucket_elements = default_bucket_elements);
  Shards(const Shards&) = delete;
  Shards& operator=(const Shards&) = delete;

  // In the order in which they become complete, which is the order of collectives.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  std::int64_t shard_elements(std::size_t flat) const { return shard_elements_[flat]; }
  std::size_t flat_of(const Parameter& parameter) const { return flat_of_[static_cast<std::size_t>(parameter.replicas)]; }

  // The runs of a parameter's slice that this rank owns, in order: visit(first element of the slice, how many, where
  // they begin in the shard of its flat buffer).
  template <class Visit>
  void for_each_owned(const Parameter& parameter, const Visit& visit) const {
    const std::int64_t begin = parameter.place, end = begin + parameter.slice.elements();
    for (const Bucket* bucket : by_place_[flat_of(parameter)]) {
      const std::int64_t first = std::max(begin, bucket->owned), last = std::min(end, bucket->owned + bucket->owned_size);
      if (first < last) visit(first - begin, last - first, bucket->shard + first - bucket->owned);
    }
  }

 private:
  std::vector<Bucket> buckets_;
  std::vector<std::vector<const Bucket*>> by_place_;  // of each flat buffer, ascending
  std::vector<std::int64_t> shard_elements_;
  std::array<std::size_t, all_replica_groups.size()> flat_of_{};
};

}  // namespace smoe
