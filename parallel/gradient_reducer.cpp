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

void GradientReducer::gather(Tensor FlatBuffer::*which, std::string_view label) {
  for (const Bucket& bucket : shards_.buckets()) {
    const Tensor& flat = buffer(bucket).*which;
    group(bucket).all_gather(flat.rows(bucket.owned.place, bucket.owned.size), flat.rows(bucket.begin, bucket.size),
                             label);
  }
}

void GradientReducer::gather_values() { gather(&FlatBuffer::values, "weights.all_gather"); }
void GradientReducer::gather_gradients() { gather(&FlatBuffer::gradients, "gradients.all_gather"); }

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
