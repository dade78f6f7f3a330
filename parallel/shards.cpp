#include "parallel/shards.h"

namespace smoe {
namespace {
constexpr std::int64_t flat_alignment = 16;  // as of the flat buffers
}

Shards::Shards(const ParameterSet& parameters, const Mesh& mesh, std::int64_t bucket_elements) {
  const auto& flats = parameters.flat_buffers();
  by_place_.resize(flats.size());
  for (std::size_t f = 0; f < flats.size(); ++f) {
    flat_of_[static_cast<std::size_t>(flats[f].replicas)] = f;
    const Communicator& group = mesh.group(axis_of(flats[f].replicas));
    const std::int64_t total = flats[f].values.elements(), unit = flat_alignment * group.size();
    const std::int64_t size = group.size() == 1 ? total : std::max(unit, bucket_elements / unit * unit);
    for (std::int64_t end = total; end > 0; end -= std::min(end, size)) {
      Bucket bucket{.flat = f, .begin = std::max<std::int64_t>(0, end - size)};
      bucket.size = end - bucket.begin;
      bucket.owned_size = bucket.size / group.size();
      bucket.owned = bucket.begin + group.rank() * bucket.owned_size;
      bucket.shard = bucket.begin / group.size();
      bucket.first_parameter = parameters.size();
      for (const Parameter& p : parameters)
        if (p.replicas == flats[f].replicas && p.place < end && p.place + p.slice.elements() > bucket.begin)
          bucket.first_parameter = std::min(bucket.first_parameter, p.index);
      buckets_.push_back(bucket);
    }
    shard_elements_.push_back(total / group.size());
  }
  // Every rank sorts by the same keys, so ranks of different groups meet in the same order too.
  std::stable_sort(buckets_.begin(), buckets_.end(), [](const Bucket& a, const Bucket& b) { return a.first_parameter > b.first_parameter; });
  for (const Bucket& bucket : buckets_) by_place_[bucket.flat].push_back(&bucket);
  for (auto& buckets : by_place_) std::sort(buckets.begin(), buckets.end(), [](const Bucket* a, const Bucket* b) { return a->begin < b->begin; });
}

}  // namespace smoe
