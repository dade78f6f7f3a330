#include "parallel/gradient_reducer.h"

namespace smoe {

GradientReducer::GradientReducer(Backend& backend, const Mesh& mesh, ParameterSet& parameters, const Shards& shards)
    : backend_(backend), mesh_(mesh), parameters_(parameters), shards_(shards) {}

Tensor GradientReducer::whole(const Bucket& bucket, Tensor FlatBuffer::*which) const {
  return (parameters_.flat_buffers()[bucket.flat].*which).rows(bucket.begin, bucket.size);
}

void GradientReducer::complete_from(std::size_t parameter) {
  const auto& buckets = shards_.buckets();
  for (; started_ < buckets.size() && buckets[started_].first_parameter >= parameter; ++started_) {
    const Bucket& bucket = buckets[started_];
    mesh_.group(axis_of(parameters_.flat_buffers()[bucket.flat].replicas))
        .start_reduce_scatter(whole(bucket, &FlatBuffer::gradients), "gradients.reduce_scatter");
  }
}

void GradientReducer::finish() {
  complete_from(0);
  for (const FlatBuffer& flat : parameters_.flat_buffers()) mesh_.group(axis_of(flat.replicas)).finish_started();
  started_ = 0;
}

void GradientReducer::gather(Tensor FlatBuffer::*which, std::string_view label) {
  for (const Bucket& bucket : shards_.buckets()) {
    const FlatBuffer& flat = parameters_.flat_buffers()[bucket.flat];
    mesh_.group(axis_of(flat.replicas)).all_gather((flat.*which).rows(bucket.owned, bucket.owned_size), whole(bucket, which), label);
  }
}

void GradientReducer::gather_values() { gather(&FlatBuffer::values, "weights.all_gather"); }
void GradientReducer::gather_gradients() { gather(&FlatBuffer::gradients, "gradients.all_gather"); }

void GradientReducer::clear_unowned() {
  for (const Bucket& bucket : shards_.buckets()) {
    const Tensor& gradients = parameters_.flat_buffers()[bucket.flat].gradients;
    const std::int64_t behind = bucket.owned + bucket.owned_size, end = bucket.begin + bucket.size;
    if (bucket.owned > bucket.begin) backend_.fill(gradients.rows(bucket.begin, bucket.owned - bucket.begin), 0.0f);
    if (behind < end) backend_.fill(gradients.rows(behind, end - behind), 0.0f);
  }
}

void GradientReducer::clear_all() {
  for (const FlatBuffer& flat : parameters_.flat_buffers()) backend_.fill(flat.gradients, 0.0f);
}

}  // namespace smoe
