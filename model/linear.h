// Linear layers without a bias, y = x W^T: the one place where the model multiplies by a weight, forward and both
// gradients. A weight is one parameter, or several that lie one behind the other in memory and are multiplied as one;
// they are declared here, in order.
//
// The weight's gradient is taken only where the weight is trained, which is where its gradient has memory. The gradient of
// the input is taken where the caller wants it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/context.h"
#include "parallel/parameter.h"

namespace smoe {

// y [T,N] = x [T,M] W^T, W [N,M].
class Linear {
 public:
  // matrices [n,M], the N rows in turn.
  Linear(ParameterSet& parameters, std::vector<Parameter> matrices);

  const Parameter& first_matrix() const { return *weight_.first; }
  bool trained() const { return !weight_.gradient().empty(); }

  void forward(Context& context, const Tensor& x, const Tensor& y) const;
  // Adds to the weight's gradient. dx = dy W or dx += dy W; empty: not wanted.
  void backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, Write write) const;

 private:
  ParameterStack weight_;
};

// One product an expert: the rows of x [R,M] and y [R,N], sorted by expert, with the matrices of W [E,N,M].
class GroupedLinear {
 public:
  // matrices [n,M], the same number of each expert's in turn.
  GroupedLinear(ParameterSet& parameters, std::int64_t experts, std::vector<Parameter> matrices);

  bool trained() const { return !weight_.gradient().empty(); }

  void forward(Context& context, const Tensor& x, const ExpertRows& rows, const Tensor& y) const;
  // The two halves of a backward, apart because a layer may need dx to compute its x again.
  void input_gradient(Context& context, const Tensor& dy, const ExpertRows& rows, const Tensor& dx) const;  // dx = dy W
  void weight_gradient(Context& context, const Tensor& dy, const Tensor& x,
                       const ExpertRows& rows) const;  // dW += dy^T x

 private:
  ParameterStack weight_;
};

}  // namespace smoe
