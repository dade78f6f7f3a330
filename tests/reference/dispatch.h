// Sorting assignments by expert, and moving rows there and back; with a capacity, some assignments are dropped.
#pragma once

#include <algorithm>

#include "tests/reference/matrix.h"

namespace smoe::reference {

// What an expert takes of every `group` consecutive tokens: the first `rows` assignments, or those of the `rows` largest
// probabilities, of equal ones the first. 0 rows: all of them.
struct Capacity {
  Index rows = 0, group = 0;
};

// The experts [T,K], -1 of padding, and -1 where the assignment is dropped. probabilities [T,E]: by them; no rows: by position.
inline Matrix<std::int32_t> within_capacity(Matrix<std::int32_t> experts, const Capacity& capacity,
                                            const Matrix<double>& probabilities = {}) {
  if (capacity.rows == 0) return experts;
  const Index K = experts.cols;
  for (Index first = 0; first < experts.rows; first += capacity.group) {
    std::vector<Index> order;
    for (Index a = first * K; a < (first + capacity.group) * K; ++a)
      if (experts.values[a] >= 0) order.push_back(a);
    const auto probability = [&](Index a) { return probabilities(a / K, experts.values[a]); };
    if (probabilities.rows > 0)
      std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return probability(a) > probability(b); });
    std::vector<Index> taken;
    std::vector<Index> dropped;
    for (const Index a : order) {
      const auto expert = static_cast<std::size_t>(experts.values[a]);
      taken.resize(std::max(taken.size(), expert + 1));
      if (taken[expert]++ >= capacity.rows) dropped.push_back(a);
    }
    for (const Index a : dropped) experts.values[a] = -1;
  }
  return experts;
}

// Rows are ordered by expert, inside one by token (and choice).
struct RoutingMap {
  Ids row_of;         // [T * K]: row of assignment t * K + k; -1: dropped
  Ids assignment_of;  // [R]: the inverse
  Ids offsets;        // [E + 1]: expert e holds rows [offsets[e], offsets[e + 1])
};

inline RoutingMap routing_map(const Matrix<std::int32_t>& experts /*[T,K], -1: dropped*/, Index expert_count) {
  RoutingMap map{Ids(experts.values.size(), -1), {}, {0}};
  for (std::int32_t e = 0; e < expert_count; ++e) {
    for (std::size_t assignment = 0; assignment < experts.values.size(); ++assignment)
      if (experts.values[assignment] == e) {
        map.row_of[assignment] = static_cast<std::int32_t>(map.assignment_of.size());
        map.assignment_of.push_back(static_cast<std::int32_t>(assignment));
      }
    map.offsets.push_back(static_cast<std::int32_t>(map.assignment_of.size()));
  }
  return map;
}

// rows[r] = x[assignment_of[r] / K]; its transpose is unpermute with no base, and the other way round.
template <typename T>
Matrix<T> permute(const Matrix<T>& x, const Ids& assignment_of, Index top_k) {
  Matrix<T> rows(static_cast<Index>(assignment_of.size()), x.cols);
  for (Index r = 0; r < rows.rows; ++r)
    for (Index d = 0; d < x.cols; ++d) rows(r, d) = x(assignment_of[r] / top_k, d);
  return rows;
}

// x[t] = base[t] + sum_k rows[row_of[t,k]], without what was dropped.
template <typename T>
Matrix<T> unpermute(const Matrix<T>& rows, const Ids& row_of, Index top_k, const Matrix<T>& base) {
  Matrix<T> x = base;
  for (Index t = 0; t < x.rows; ++t)
    for (Index k = 0; k < top_k; ++k)
      for (Index d = 0; d < x.cols && row_of[t * top_k + k] >= 0; ++d) x(t, d) += rows(row_of[t * top_k + k], d);
  return x;
}

// row_weights[r] = weights[assignment_of[r]], and back, where a dropped one becomes zero.
template <typename T>
std::vector<T> permute_weights(const Matrix<T>& weights, const Ids& assignment_of) {
  std::vector<T> row_weights;
  for (const std::int32_t a : assignment_of) row_weights.push_back(weights.values[a]);
  return row_weights;
}

template <typename T>
Matrix<T> unpermute_weights(const std::vector<T>& row_weights, const Ids& row_of, Index top_k) {
  Matrix<T> weights(static_cast<Index>(row_of.size()) / top_k, top_k);
  for (std::size_t a = 0; a < row_of.size(); ++a)
    if (row_of[a] >= 0) weights.values[a] = row_weights[row_of[a]];
  return weights;
}

}  // namespace smoe::reference
