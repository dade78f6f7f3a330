#include "model/low_rank.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

namespace smoe {
namespace {

constexpr std::string_view weight_suffix = ".weight";

// model.layers.0.self_attn.q_proj.weight -> model.layers.0.self_attn.q_proj
std::string_view path_of(std::string_view name) { return name.substr(0, name.size() - weight_suffix.size()); }
std::string_view module_of(std::string_view name) {
  const std::string_view path = path_of(name);
  return path.substr(path.rfind('.') + 1);
}

Split split_of(const Parameter& w, int dim) {
  if (w.split == Split::ep) return Split::ep;
  return w.slice[dim] != w.shape[dim] ? Split::tp : Split::none;
}

// Its columns are cut as W's are. Drawn as torch draws a linear layer's weight, from [-1 / sqrt(in), 1 / sqrt(in)).
Parameter a_of(const Parameter& w, std::int64_t r) {
  return {.name = std::string(path_of(w.name)) + ".lora_A.weight",
          .shape = {r, w.shape[1]},
          .first = {0, w.first[1]},
          .slice = {r, w.slice[1]},
          .split = split_of(w, 1),
          .initial_range = static_cast<float>(1 / std::sqrt(static_cast<double>(w.shape[1]))),
          .learning_rate_scale = w.learning_rate_scale,
          .adapter = true};
}
// Its rows are cut as W's are. Zero: at first an adapter changes nothing.
Parameter b_of(const Parameter& w, std::int64_t r) {
  return {.name = std::string(path_of(w.name)) + ".lora_B.weight",
          .shape = {w.shape[0], r},
          .first = {w.first[0], 0},
          .slice = {w.slice[0], r},
          .split = split_of(w, 0),
          .learning_rate_scale = w.learning_rate_scale,
          .adapter = true};
}

const Parameter* add_stacked(ParameterSet& parameters, std::vector<Parameter> all) {
  const Parameter* first = nullptr;
  for (Parameter& each : all) {
    each.follows_previous = first != nullptr;
    const Parameter& added = parameters.add(std::move(each));
    if (!first) first = &added;
  }
  return first;
}

// One product of all rows, or one an expert.
void product(Context& context, Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows* rows,
             Write write) {
  if (rows)
    context.backend.grouped_gemm(kind, a, b, c, *rows, write);
  else
    context.backend.gemm(kind, a, b, c, write);
}

}  // namespace

LowRank::LowRank(ParameterSet& parameters, const AdapterSite& site, const std::vector<Parameter>& matrices,
                 std::int64_t experts)
    : experts_(experts), stream_(site.stream()) {
  if (!site.config) return;
  const LoraConfig& config = *site.config;
  const std::size_t of_one = matrices.size() / static_cast<std::size_t>(std::max<std::int64_t>(1, experts));
  for (std::size_t i = 0; i < of_one; ++i) {
    const Parameter& w = matrices[i];
    const std::int64_t rows = w.slice.rank() == 0 ? w.shape[0] : w.slice[0];
    if (config.targets(site.layer, module_of(w.name)))
      blocks_.add({outputs_, rows, config.r * static_cast<std::int64_t>(blocks_.size()), config.r});
    outputs_ += rows;
  }
  if (empty()) return;
  scale_ = config.scale();
  dropout_ = static_cast<float>(config.dropout);
  std::vector<Parameter> a, b;
  for (Parameter w : matrices) {
    if (w.slice.rank() == 0) w.slice = w.shape;
    if (!config.targets(site.layer, module_of(w.name))) continue;
    a.push_back(a_of(w, config.r));
    b.push_back(b_of(w, config.r));
  }
  first_column_ = a.front().first[1];
  a_.first = add_stacked(parameters, std::move(a));
  b_.first = add_stacked(parameters, std::move(b));
  const std::int64_t inputs = a_.first->slice[1], inner = blocks_.columns();
  a_.shape = experts > 0 ? Shape{experts, inner, inputs} : Shape{inner, inputs};
  b_.shape = {std::max<std::int64_t>(1, experts), blocks_.elements()};
}

Dropout LowRank::dropout(const RowNumbers& numbers) const {
  return {*numbers.key, stream_, dropout_, numbers.first, first_column_};
}

Tensor LowRank::dropped(Context& context, const Tensor& x, const RowNumbers& numbers) const {
  if (!drops(numbers)) return x;
  const Tensor left = context.scratch.take_like(x);
  context.backend.dropout(dropout(numbers), numbers.rows, x, left, Write::assign);
  return left;
}

Shape LowRank::outer_shape(std::int64_t columns) const {
  return experts_ > 0 ? Shape{experts_, outputs_, columns} : Shape{outputs_, columns};
}

Tensor LowRank::spread(Context& context) const {
  const std::int64_t inner = blocks_.columns();
  const Tensor b = b_.value(), matrices = context.scratch.take(b.type(), {b.dim(0), outputs_, inner});
  context.backend.spread_blocks(blocks_, scale_, b, matrices);
  return matrices.reshape(outer_shape(inner));
}

void LowRank::forward(Context& context, const Tensor& x, const ExpertRows* rows, const RowNumbers& numbers,
                      const Tensor& y) const {
  if (empty()) return;
  const ArenaScope scope(context.scratch);
  const Tensor inner = context.scratch.take(x.type(), {x.dim(0), blocks_.columns()});
  product(context, Gemm::nt, dropped(context, x, numbers), a_.value(), inner, rows, Write::assign);
  product(context, Gemm::nt, inner, spread(context), y, rows, Write::add);
}

Tensor LowRank::inner_gradient(Context& context, const Tensor& dy, const ExpertRows* rows) const {
  if (empty()) return {};
  const Tensor inner = context.scratch.take(dy.type(), {dy.dim(0), blocks_.columns()});
  const ArenaScope scope(context.scratch);
  product(context, Gemm::nn, dy, spread(context), inner, rows, Write::assign);
  return inner;
}

void LowRank::input_gradient(Context& context, const Tensor& inner, const ExpertRows* rows, const RowNumbers& numbers,
                             const Tensor& dx) const {
  if (empty()) return;
  if (!drops(numbers)) return product(context, Gemm::nn, inner, a_.value(), dx, rows, Write::add);
  const ArenaScope scope(context.scratch);
  const Tensor through = context.scratch.take_like(dx);
  product(context, Gemm::nn, inner, a_.value(), through, rows, Write::assign);
  context.backend.dropout(dropout(numbers), numbers.rows, through, dx, Write::add);
}

void LowRank::weight_gradient(Context& context, const Tensor& dy, const Tensor& inner, const Tensor& x,
                              const ExpertRows* rows, const RowNumbers& numbers) const {
  if (!trained()) return;
  const ArenaScope scope(context.scratch);
  const Tensor left = dropped(context, x, numbers);
  if (const Tensor da = a_.gradient(); !da.empty()) product(context, Gemm::tn, inner, left, da, rows, Write::add);
  const Tensor db = b_.gradient();
  if (db.empty()) return;
  const std::int64_t columns = blocks_.columns();
  const Tensor again = context.scratch.take(x.type(), {x.dim(0), columns}),
               spread = context.scratch.take({db.dim(0), outputs_, columns});
  product(context, Gemm::nt, left, a_.value(), again, rows, Write::assign);
  product(context, Gemm::tn, dy, again, spread.reshape(outer_shape(columns)), rows, Write::assign);
  context.backend.gather_blocks(blocks_, scale_, spread, db);
}

}  // namespace smoe
