// Sequence parallelism (Korthikanti et al., arXiv 2205.05198), always on with tensor parallelism: where the work is per
// token, each rank of a tp group holds T / tp of a micro-batch's T tokens, a run in order. Attention, the embedding and
// the head work on all T with a slice of their weights: they gather before and sum back after. With tp = 1 nothing is
// copied and nothing is sent.
//
// The two are each other's backward: the gradient of a gather is a sum back, that of a sum back a gather.
#pragma once

#include <cstdint>
#include <numeric>
#include <string_view>

#include "kernels/arena.h"
#include "parallel/mesh.h"

namespace smoe {

class TokenSplit {
 public:
  explicit TokenSplit(const Mesh& mesh) : group_(mesh.group(Axis::tp)) {}

  std::int64_t local(std::int64_t tokens) const { return tokens / group_.size(); }
  std::int64_t first(std::int64_t tokens) const { return local(tokens) * group_.rank(); }
  // Of this rank's tokens, how many at a time never cross from one sequence into the next: whole sequences where tp = 1.
  std::int64_t run(std::int64_t sequences, std::int64_t sequence_length) const {
    return std::gcd(sequence_length, local(sequences * sequence_length));
  }

  // x [T/tp, D] -> [T, D], in `arena`; x itself with tp = 1.
  Tensor gather(Arena& arena, const Tensor& x, std::string_view label) const;
  // Where a layer puts its rank's [T, D] term of a sum over ranks, of which `local` [T/tp, D] is wanted: in `arena`, or,
  // with tp = 1, local itself.
  Tensor term(Arena& arena, const Tensor& local) const;
  // Sums the terms over the ranks into `local`. The term is left as it was.
  void sum_back(const Tensor& term, const Tensor& local, std::string_view label) const;

 private:
  Communicator& group_;
};

}  // namespace smoe
