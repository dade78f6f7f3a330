// Linear layers without a bias, y = x W^T: the one place where the model multiplies by a weight, forward and both
// gradients. A weight is one parameter, or several that lie one behind the other in memory and are multiplied as one;
// they are declared here, in order.
// Beside them there may be low-rank adapters (model/low_rank.h).
//
// The weight's gradient is taken only where the weight is trained, which is where its gradient has memory. The gradient of
// the input is taken where the caller wants it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/context.h"
#include "model/low_rank.h"
#include "parallel/parameter.h"

namespace smoe {

// y [T,N] = x [T,M] W^T, W [N,M].
class Linear {
 public:
  // matrices [n,M], the N rows in turn.
  Linear(ParameterSet& parameters, const std::vector<Parameter>& matrices, const AdapterSite& adapters = {});

  const Parameter& first_matrix() const { return *weight_.first; }
  bool trained() const { return !weight_.gradient().empty() || adapters_.trained(); }

  // numbers: of x's rows, for what adapters drop.
  void forward(Context& context, const Tensor& x, const Tensor& y, const RowNumbers& numbers = {}) const;
  // Adds to the weights' gradients. dx = dy W or dx += dy W; empty: not wanted.
  void backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, Write write,
                const RowNumbers& numbers = {}) const;

 private:
  ParameterStack weight_;
  LowRank adapters_;
};

// One product an expert: the rows of x [R,M] and y [R,N], sorted by expert, with the matrices of W [E,N,M].
class GroupedLinear {
 public:
  // matrices [n,M], the same number of each expert's in turn.
  GroupedLinear(ParameterSet& parameters, std::int64_t experts, const std::vector<Parameter>& matrices,
                const AdapterSite& adapters = {});

  bool trained() const { return !weight_.gradient().empty() || adapters_.trained(); }

  void forward(Context& context, const Tensor& x, const ExpertRows& rows, const Tensor& y,
               const RowNumbers& numbers = {}) const;
  // The two halves of a backward, apart because a layer may need dx to compute its x again. Both read what comes of dy on the
  // way through the adapters, in scratch memory: inner_gradient is first.
  Tensor inner_gradient(Context& context, const Tensor& dy, const ExpertRows& rows) const;
  // dx = dy W
  void input_gradient(Context& context, const Tensor& dy, const Tensor& inner, const ExpertRows& rows, const Tensor& dx,
                      const RowNumbers& numbers = {}) const;
  // dW += dy^T x
  void weight_gradient(Context& context, const Tensor& dy, const Tensor& inner, const Tensor& x, const ExpertRows& rows,
                       const RowNumbers& numbers = {}) const;

 private:
  ParameterStack weight_;
  LowRank adapters_;
};

}  // namespace smoe
