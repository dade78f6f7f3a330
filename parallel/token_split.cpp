#include "parallel/token_split.h"

namespace smoe {
namespace {

Shape times(const Shape& shape, std::int64_t ranks) {
  switch (shape.rank()) {
    case 1: return {shape[0] * ranks};
    case 2: return {shape[0] * ranks, shape[1]};
    case 3: return {shape[0] * ranks, shape[1], shape[2]};
    default: return {shape[0] * ranks, shape[1], shape[2], shape[3]};
  }
}

}  // namespace

Tensor TokenSplit::gather(Arena& arena, const Tensor& x, std::string_view label) const {
  if (group_.size() == 1) return x;
  const Tensor all = arena.take(x.type(), times(x.shape(), group_.size()));
  group_.all_gather(x, all, label);
  return all;
}

Tensor TokenSplit::term(Arena& arena, const Tensor& local) const {
  return group_.size() == 1 ? local : arena.take(local.type(), times(local.shape(), group_.size()));
}

void TokenSplit::sum_back(const Tensor& term, const Tensor& local, std::string_view label) const {
  if (group_.size() > 1) group_.reduce_scatter(term, local, label);
}

}  // namespace smoe
