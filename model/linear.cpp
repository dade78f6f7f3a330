#include "model/linear.h"

#include <utility>

namespace smoe {
namespace {

// All rows of matrices that have as many columns.
ParameterStack add_matrices(ParameterSet& parameters, const std::vector<Parameter>& matrices) {
  ParameterStack stack;
  std::int64_t rows = 0;
  for (Parameter matrix : matrices) {
    matrix.follows_previous = stack.first != nullptr;
    const Parameter& added = parameters.add(std::move(matrix));
    if (!stack.first) stack.first = &added;
    rows += added.slice[0];
  }
  stack.shape = {rows, stack.first->slice[1]};
  return stack;
}

}  // namespace

Linear::Linear(ParameterSet& parameters, const std::vector<Parameter>& matrices, const AdapterSite& adapters)
    : weight_(add_matrices(parameters, matrices)), adapters_(parameters, adapters, matrices, 0) {}

void Linear::forward(Context& context, const Tensor& x, const Tensor& y, const RowNumbers& numbers) const {
  context.backend.gemm(Gemm::nt, x, weight_.value(), y, Write::assign);
  adapters_.forward(context, x, nullptr, numbers, y);
}

void Linear::backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& dx, Write write,
                      const RowNumbers& numbers) const {
  if (const Tensor dw = weight_.gradient(); !dw.empty()) context.backend.gemm(Gemm::tn, dy, x, dw, Write::add);
  if (!dx.empty()) context.backend.gemm(Gemm::nn, dy, weight_.value(), dx, write);
  const ArenaScope scope(context.scratch);
  const Tensor inner = adapters_.inner_gradient(context, dy, nullptr);
  adapters_.weight_gradient(context, dy, inner, x, nullptr, numbers);
  if (!dx.empty()) adapters_.input_gradient(context, inner, nullptr, numbers, dx);
}

GroupedLinear::GroupedLinear(ParameterSet& parameters, std::int64_t experts, const std::vector<Parameter>& matrices,
                             const AdapterSite& adapters)
    : weight_(add_matrices(parameters, matrices)), adapters_(parameters, adapters, matrices, experts) {
  weight_.shape = {experts, weight_.shape[0] / experts, weight_.shape[1]};
}

void GroupedLinear::forward(Context& context, const Tensor& x, const ExpertRows& rows, const Tensor& y,
                            const RowNumbers& numbers) const {
  context.backend.grouped_gemm(Gemm::nt, x, weight_.value(), y, rows, Write::assign);
  adapters_.forward(context, x, &rows, numbers, y);
}

Tensor GroupedLinear::inner_gradient(Context& context, const Tensor& dy, const ExpertRows& rows) const {
  return adapters_.inner_gradient(context, dy, &rows);
}

void GroupedLinear::input_gradient(Context& context, const Tensor& dy, const Tensor& inner, const ExpertRows& rows,
                                   const Tensor& dx, const RowNumbers& numbers) const {
  context.backend.grouped_gemm(Gemm::nn, dy, weight_.value(), dx, rows, Write::assign);
  adapters_.input_gradient(context, inner, &rows, numbers, dx);
}

void GroupedLinear::weight_gradient(Context& context, const Tensor& dy, const Tensor& inner, const Tensor& x,
                                    const ExpertRows& rows, const RowNumbers& numbers) const {
  if (const Tensor dw = weight_.gradient(); !dw.empty())
    context.backend.grouped_gemm(Gemm::tn, dy, x, dw, rows, Write::add);
  adapters_.weight_gradient(context, dy, inner, x, &rows, numbers);
}

}  // namespace smoe
