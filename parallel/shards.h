// Which part of each flat buffer this rank owns (ZeRO stage 1: arXiv 1910.02054). The ranks that hold replicas of a
// buffer divide it: each keeps the optimizer's state of its part, updates it, and writes it to checkpoints.
//
// A buffer is cut into buckets, from its end, because backward finishes the last parameters first; a rank owns an equal
// run of each bucket. So a bucket can be reduced as soon as its parameters' gradients are complete. Of a frozen buffer
// there is nothing to reduce: it has no bucket, and a rank owns one run of it, for writing it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

// Elements that lie together both in a flat buffer and in this rank's shard of it, which is its runs one after another.
struct OwnedRun {
  std::int64_t place = 0;  // where they begin in the flat buffer
  std::int64_t shard = 0;  // and in the shard
  std::int64_t size = 0;
  std::int64_t end() const { return place + size; }
};

struct Bucket {
  std::size_t flat = 0;              // index into ParameterSet::flat_buffers()
  std::int64_t begin = 0, size = 0;  // elements of the flat buffer
  OwnedRun owned{};                  // what this rank owns of them: size / group size
  std::size_t first_parameter = 0;   // the bucket is complete when this parameter and all after it are
};

class Shards {
 public:
  static constexpr std::int64_t default_bucket_elements = std::int64_t{4} << 20;  // 16 MiB

  // parameters must have been laid out, and outlive this. A group of one has one bucket a buffer, which it owns whole.
  Shards(const ParameterSet& parameters, const Mesh& mesh, std::int64_t bucket_elements = default_bucket_elements);

  // In the order in which they become complete, which is the order of collectives.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  std::int64_t shard_elements(std::size_t flat) const { return shard_elements_[flat]; }

  // Memory, from `arena`, for the masters of what is trained in bf16: 4 bytes for each number that this rank owns. Zeroed;
  // store_masters() fills them.
  void allocate_masters(Backend& backend, Arena& arena);
  // The numbers that the optimizer updates and checkpoints keep of a run of a flat buffer: f32 masters, which bf16 values
  // are rounded from; where there are none, the values themselves.
  Tensor masters(std::size_t flat, const OwnedRun& run) const {
    return has_masters(flat) ? masters_[flat].rows(run.shard, run.size) : values(flat, run);
  }
  // Of a run with masters, what the model computes with; else empty.
  Tensor rounded_values(std::size_t flat, const OwnedRun& run) const {
    return has_masters(flat) ? values(flat, run) : Tensor{};
  }
  // A parameter's whole slice in f32, before it was rounded: this rank's part becomes its masters, where it has any.
  void store_masters(Backend& backend, const Parameter& parameter, std::span<const float> slice) const;

  // The runs of a parameter's slice that this rank owns, in order: visit(first element of the slice, run).
  template <class Visit>
  void for_each_owned(const Parameter& parameter, const Visit& visit) const {
    const std::int64_t begin = parameter.place, end = begin + parameter.slice.elements();
    for (const OwnedRun& run : owned_[parameter.flat]) {
      const std::int64_t first = std::max(begin, run.place), last = std::min(end, run.end());
      if (first < last) visit(first - begin, OwnedRun{first, run.shard + first - run.place, last - first});
    }
  }

 private:
  bool has_masters(std::size_t flat) const {
    return parameters_.flat_buffers()[flat].type == DType::bf16 && parameters_.flat_buffers()[flat].trainable;
  }
  Tensor values(std::size_t flat, const OwnedRun& run) const {
    return parameters_.flat_buffers()[flat].values.rows(run.place, run.size);
  }
  void add_buckets(std::size_t flat, const Communicator& group, std::int64_t bucket_elements);

  const ParameterSet& parameters_;
  std::vector<Bucket> buckets_;
  std::vector<std::vector<OwnedRun>> owned_;  // of each flat buffer, ascending
  std::vector<std::int64_t> shard_elements_;
  std::vector<Tensor> masters_;  // of each flat buffer [shard_elements], empty where it has none
};

}  // namespace smoe
