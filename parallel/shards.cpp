#include "parallel/shards.h"

#include "parallel/comm/communicator.h"

namespace smoe {
namespace {

// The equal run that a rank owns of elements [begin, begin + size) of a flat buffer.
OwnedRun own_run(std::int64_t begin, std::int64_t size, const Communicator& group) {
  const std::int64_t part = size / group.size();
  return {.place = begin + group.rank() * part, .shard = begin / group.size(), .size = part};
}

}  // namespace

Shards::Shards(const ParameterSet& parameters, const Mesh& mesh, std::int64_t bucket_elements)
    : parameters_(parameters), owned_(parameters.flat_buffers().size()) {
  const auto& flats = parameters.flat_buffers();
  for (std::size_t f = 0; f < flats.size(); ++f) {
    const Communicator& group = mesh.group(replica_axis(flats[f].split));
    shard_elements_.push_back(flats[f].elements / group.size());
    if (flats[f].trainable)
      add_buckets(f, group, bucket_elements);
    else
      owned_[f].push_back(own_run(0, flats[f].elements, group));
  }
  // Every rank sorts by the same keys, so ranks of different groups meet in the same order too.
  std::stable_sort(buckets_.begin(), buckets_.end(),
                   [](const Bucket& a, const Bucket& b) { return a.first_parameter > b.first_parameter; });
  for (const Bucket& bucket : buckets_) owned_[bucket.flat].push_back(bucket.owned);
  for (auto& runs : owned_)
    std::sort(runs.begin(), runs.end(), [](const OwnedRun& a, const OwnedRun& b) { return a.place < b.place; });
}

void Shards::allocate_masters(Backend& backend, Arena& arena) {
  masters_.resize(shard_elements_.size());
  for (std::size_t f = 0; f < masters_.size(); ++f) {
    if (!has_masters(f)) continue;
    masters_[f] = arena.take({shard_elements_[f]});
    backend.fill(masters_[f], 0.0f);
  }
}

void Shards::store_masters(Backend& backend, const Parameter& parameter, std::span<const float> slice) const {
  if (!has_masters(parameter.flat)) return;
  for_each_owned(parameter, [&](std::int64_t first, const OwnedRun& run) {
    backend.copy_from_host(masters(parameter.flat, run), slice.data() + first);
  });
}

void Shards::add_buckets(std::size_t flat, const Communicator& group, std::int64_t bucket_elements) {
  const FlatBuffer& buffer = parameters_.flat_buffers()[flat];
  const std::int64_t unit = flat_alignment(buffer.type) * group.size();
  const std::int64_t size = group.size() == 1 ? buffer.elements : std::max(unit, bucket_elements / unit * unit);
  for (std::int64_t end = buffer.elements; end > 0; end -= std::min(end, size)) {
    Bucket bucket{.flat = flat,
                  .begin = std::max<std::int64_t>(0, end - size),
                  .size = std::min(end, size),
                  .first_parameter = parameters_.size()};
    bucket.owned = own_run(bucket.begin, bucket.size, group);
    for (const Parameter& p : parameters_)
      if (p.flat == flat && p.place < end && p.place + p.slice.elements() > bucket.begin)
        bucket.first_parameter = std::min(bucket.first_parameter, p.index);
    buckets_.push_back(bucket);
  }
}

}  // namespace smoe
