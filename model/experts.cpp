#include "model/experts.h"

#include <initializer_list>
#include <vector>

#include "kernels/range.h"

namespace smoe {
namespace {

// The matrices of these names, of every expert in turn.
std::vector<Parameter> matrices(const std::string& prefix, const ModelConfig& config, std::int64_t first,
                                std::int64_t count, std::initializer_list<const char*> names, Shape shape) {
  std::vector<Parameter> all;
  for (std::int64_t e = first; e < first + count; ++e)
    for (const char* name : names)
      all.push_back({.name = prefix + "experts." + std::to_string(e) + "." + name + ".weight",
                     .shape = shape,
                     .split = Split::ep,
                     .initial_std = static_cast<float>(config.initializer_range)});
  return all;
}

}  // namespace

Experts::Experts(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, std::int64_t first,
                 std::int64_t count, const LoraConfig* lora, int layer)
    : intermediate_(config.intermediate_size),
      gate_up_(parameters, count,
               matrices(prefix, config, first, count, {"w1", "w3"}, {intermediate_, config.hidden_size}),
               {lora, layer, AdapterSite::Input::experts}),
      down_(parameters, count, matrices(prefix, config, first, count, {"w2"}, {config.hidden_size, intermediate_}),
            {lora, layer, AdapterSite::Input::activations}) {}

void Experts::forward(Context& context, const Tensor& x, const Tensor& row_weights, const ExpertRows& rows,
                      const RowNumbers& numbers, Saved& saved, const Tensor& y) const {
  const Range range(context.backend, "experts");
  const std::int64_t r = x.dim(0);
  saved.x = x;
  saved.row_weights = row_weights;
  saved.rows = rows;
  saved.numbers = numbers;
  saved.h = context.activations.take(x.type(), {r, 2 * intermediate_});
  const ArenaScope scope(context.scratch);
  const Tensor a = context.scratch.take(x.type(), {r, intermediate_});
  gate_up_.forward(context, x, rows, saved.h, numbers);
  context.backend.swiglu_forward(saved.h, row_weights, a);
  down_.forward(context, a, rows, y, numbers);
}

void Experts::backward(Context& context, const Tensor& dy_then_dx, Saved& saved, const Tensor& drow_weights) const {
  const Range range(context.backend, "experts");
  const ArenaScope scope(context.scratch);
  const std::int64_t r = dy_then_dx.dim(0);
  const Tensor da = context.scratch.take(dy_then_dx.type(), {r, intermediate_});
  const Tensor a = context.scratch.take_like(da);
  const Tensor down_inner = down_.inner_gradient(context, dy_then_dx, saved.rows);
  down_.input_gradient(context, dy_then_dx, down_inner, saved.rows, da, saved.numbers);
  const Tensor dh = saved.h;  // in place: h is not needed again
  context.backend.swiglu_backward(saved.h, saved.row_weights, da, dh, drow_weights, a);
  down_.weight_gradient(context, dy_then_dx, down_inner, a, saved.rows, saved.numbers);
  const Tensor gate_up_inner = gate_up_.inner_gradient(context, dh, saved.rows);
  gate_up_.weight_gradient(context, dh, gate_up_inner, saved.x, saved.rows, saved.numbers);
  gate_up_.input_gradient(context, dh, gate_up_inner, saved.rows, dy_then_dx, saved.numbers);
}

}  // namespace smoe
