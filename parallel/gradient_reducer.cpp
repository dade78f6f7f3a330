#include "parallel/gradient_reducer.h"

namespace smoe {

GradientReducer::GradientReducer(Backend& backend, const Mesh& mesh, ParameterSet& parameters, const Shards& shards)
    : backend_(backend), mesh_(mesh), parameters_(parameters), shards_(shards) {}

void GradientReducer::complete_from(std::size_t parameter) {
  const auto& buckets = shards_.buckets();
  for (; started_ < buckets.size() && buckets[started_].first_parameter >= parameter; ++started_) {
    const Bucket& bucket = buckets[started_];
    group(bucket).start_reduce_scatter(buffer(bucket).gradients.rows(bucket.begin, bucket.size),
                                       "gradients.reduce_scatter");
  }
}

void GradientReducer::finish() {
  complete_from(0);
  for (const Split split : all_splits) mesh_.group(replica_axis(split)).finish_started();
  started_ = 0;
}

// Buckets lie as backward completes them; forward wants the last first.
void GradientReducer::start_gathering_values() {
  finish_gathering_values();
  arriving_.clear();
  arrived_ = 0;
  const auto& buckets = shards_.buckets();
  for (std::size_t i = buckets.size(); i-- > 0;) {
    const Bucket& bucket = buckets[i];
    const Tensor& flat = buffer(bucket).values;
    const Started started = group(bucket).start_all_gather(flat.rows(bucket.owned.place, bucket.owned.size),
                                                           flat.rows(bucket.begin, bucket.size), "weights.all_gather");
    arriving_.push_back({&group(bucket), started, bucket.first_parameter});
  }
}

void GradientReducer::expect_values_before(std::size_t parameter) {
  for (; arrived_ < arriving_.size() && arriving_[arrived_].first_parameter < parameter; ++arrived_)
    arriving_[arrived_].group->finish(arriving_[arrived_].started);
}

void GradientReducer::finish_gathering_values() { expect_values_before(parameters_.size()); }

void GradientReducer::gather_gradients() {
  for (const Bucket& bucket : shards_.buckets()) {
    const Tensor& flat = buffer(bucket).gradients;
    group(bucket).all_gather(flat.rows(bucket.owned.place, bucket.owned.size), flat.rows(bucket.begin, bucket.size),
                             "gradients.all_gather");
  }
}

void GradientReducer::clear_unowned() {
  for (const Bucket& bucket : shards_.buckets()) {
    const Tensor& gradients = buffer(bucket).gradients;
    const std::int64_t behind = bucket.owned.end(), end = bucket.begin + bucket.size;
    if (bucket.owned.place > bucket.begin)
      backend_.fill(gradients.rows(bucket.begin, bucket.owned.place - bucket.begin), 0.0f);
    if (behind < end) backend_.fill(gradients.rows(behind, end - behind), 0.0f);
  }
}

void GradientReducer::clear_all() {
  for (const Bucket& bucket : shards_.buckets())
    backend_.fill(buffer(bucket).gradients.rows(bucket.begin, bucket.size), 0.0f);
}

}  // namespace smoe
