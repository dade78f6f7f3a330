#include "model/linear.h"

#include <utility>

namespace smoe {
namespace {

// All rows of matrices that have as many columns.
ParameterStack add_matrices(ParameterSet& parameters, std::vector<Parameter> matrices) {
  ParameterStack stack;
  std::int64_t rows = 0;
  for (Parameter& matrix : matrices) {
    matrix.follows_previous = stack.first != nullptr;
    const Parameter& added = parameters.add(std::move(matrix));
    if (!stack.first) stack.first = &added;
    rows += added.slice[0];
  }
  stack.shape = {rows, stack.first->slice[1]};
  return stack;
}

}  // namespace

Linear::Linear(ParameterSet& parameters, std::vector<Parameter> matrices)
    : weight_(add_matrices(parameters, std::move(matrices))) {}

void Linear::forward(Context& context, const Tensor& x, const Tensor& y) const {
  context.backend.gemm(Gemm::nt, x, weight_.value(), y, Write::assign);
}

void Linear::backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, Write write) const {
  if (trained()) context.backend.gemm(Gemm::tn, dy, x, weight_.gradient(), Write::add);
  if (!dx.empty()) context.backend.gemm(Gemm::nn, dy, weight_.value(), dx, write);
}

GroupedLinear::GroupedLinear(ParameterSet& parameters, std::int64_t experts, std::vector<Parameter> matrices)
    : weight_(add_matrices(parameters, std::move(matrices))) {
  weight_.shape = {experts, weight_.shape[0] / experts, weight_.shape[1]};
}

void GroupedLinear::forward(Context& context, const Tensor& x, const ExpertRows& rows, const Tensor& y) const {
  context.backend.grouped_gemm(Gemm::nt, x, weight_.value(), y, rows, Write::assign);
}

void GroupedLinear::input_gradient(Context& context, const Tensor& dy, const ExpertRows& rows, const Tensor& dx) const {
  context.backend.grouped_gemm(Gemm::nn, dy, weight_.value(), dx, rows, Write::assign);
}

void GroupedLinear::weight_gradient(Context& context, const Tensor& dy, const Tensor& x, const ExpertRows& rows) const {
  if (trained()) context.backend.grouped_gemm(Gemm::tn, dy, x, weight_.gradient(), rows, Write::add);
}

}  // namespace smoe
