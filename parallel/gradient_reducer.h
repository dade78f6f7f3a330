// Sums gradients over the ranks that hold replicas, and spreads updated weights. With Shards, this is ZeRO stage 1.
// Frozen parameters have neither.
//
// Buckets are reduce-scattered while backward goes on: backward says from which parameter on the gradients are
// complete, which only ever moves down, and every bucket that is complete by then is started. Weights come back in the order in
// which the next forward reads them, and forward says how far it has come.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/backend.h"
#include "parallel/comm/communicator.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/shards.h"

namespace smoe {

class GradientReducer {
 public:
  GradientReducer(Backend& backend, const Mesh& mesh, ParameterSet& parameters, const Shards& shards);

  // The gradients of this parameter and of all after it in the set will not change again in this step.
  void complete_from(std::size_t parameter);
  // The rest, and waits: then each rank has the sums of what it owns, and rubbish in what it does not.
  void finish();

  // After the update: every rank gets the weights that the others own. They are on their way until they are asked for: those of
  // the parameters before this one in the set, or all.
  void start_gathering_values();
  void expect_values_before(std::size_t parameter);
  void finish_gathering_values();
  // The whole summed gradient on every rank, for dumps and comparisons.
  void gather_gradients();
  // Zeroes the gradients, ready for the next step. What the optimizer has used it has zeroed already.
  void clear_unowned();
  void clear_all();

 private:
  const FlatBuffer& buffer(const Bucket& bucket) const { return parameters_.flat_buffers()[bucket.flat]; }
  Communicator& group(const Bucket& bucket) const { return mesh_.group(replica_axis(buffer(bucket).split)); }
  // Weights of a bucket that are on their way.
  struct Arriving {
    Communicator* group = nullptr;
    Started started;
    std::size_t first_parameter = 0;
  };

  Backend& backend_;
  const Mesh& mesh_;
  ParameterSet& parameters_;
  const Shards& shards_;
  std::size_t started_ = 0;         // buckets, of this step
  std::vector<Arriving> arriving_;  // in the order in which forward wants them
  std::size_t arrived_ = 0;         // of those
};

}  // namespace smoe
