#include "trainer/analysis/overlap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>

#include "kernels/host_view.h"
#include "trainer/analysis/expert_matrix.h"
#include "trainer/sample_columns.h"

namespace smoe {
namespace {

constexpr double no_cosine = std::numeric_limits<double>::quiet_NaN();

// In double, by eight sums, which a compiler makes vectors of; always in the same order.
double inner_product(std::span<const float> a, std::span<const float> b) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= a.size(); i += sums.size())
    for (std::size_t j = 0; j < sums.size(); ++j)
      sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  for (; i < a.size(); ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Inner products of E vectors with each other [E,E], of which the vectors may come in pieces.
class Gram {
 public:
  explicit Gram(std::size_t experts) : experts_(experts), products_(experts * experts) {}

  void add(const std::vector<std::span<const float>>& vectors) {
    for (std::size_t e = 0; e < experts_; ++e)
      for (std::size_t f = e; f < experts_; ++f) products_[e * experts_ + f] += inner_product(vectors[e], vectors[f]);
  }
  void add(const Gram& other) {
    for (std::size_t i = 0; i < products_.size(); ++i) products_[i] += other.products_[i];
  }
  double cosine(std::size_t e, std::size_t f) const {
    const double norms = std::sqrt(products_[e * experts_ + e]) * std::sqrt(products_[f * experts_ + f]);
    return norms > 0 ? products_[std::min(e, f) * experts_ + std::max(e, f)] / norms : no_cosine;
  }
  std::vector<double> cosines() const {
    std::vector<double> all;
    for (std::size_t e = 0; e < experts_; ++e)
      for (std::size_t f = 0; f < experts_; ++f) all.push_back(e == f && cosine(e, f) > 0 ? 1 : cosine(e, f));
    return all;
  }

 private:
  std::size_t experts_;
  std::vector<double> products_;
};

// One kind of matrix of all experts, a few rows at a time: a released expert has 58 million numbers of each.
Gram gram_of(Context& context, Mixtral& model, const LoraConfig* lora, std::size_t layer, const char* name) {
  constexpr std::int64_t numbers_at_once = 1 << 16;
  const auto experts = static_cast<std::size_t>(model.config().num_local_experts);
  const ArenaScope scope(context.scratch);
  std::vector<ExpertMatrix> matrices;
  for (std::size_t e = 0; e < experts; ++e) matrices.emplace_back(context, model.parameters(), lora, layer, e, name);
  const std::int64_t rows = matrices.front().row_count();
  const std::int64_t at_once = std::max<std::int64_t>(1, numbers_at_once / matrices.front().columns());
  Gram gram(experts);
  std::vector<std::vector<float>> staging(experts);
  std::vector<std::span<const float>> pieces(experts);
  for (std::int64_t row = 0; row < rows; row += at_once) {
    const ArenaScope of_piece(context.scratch);
    for (std::size_t e = 0; e < experts; ++e) {
      const HostView view(context.backend, matrices[e].rows(context, row, std::min(at_once, rows - row)), staging[e]);
      view.fetch();
      pieces[e] = view.numbers();
    }
    gram.add(pieces);
  }
  return gram;
}

// Means of cosines over tokens, [E,E].
class MeanCosines {
 public:
  explicit MeanCosines(std::size_t experts) : experts_(experts), sums_(experts * experts), counts_(sums_.size()) {}

  void add(const Gram& of_token) {
    for (std::size_t e = 0; e < experts_; ++e)
      for (std::size_t f = e + 1; f < experts_; ++f)
        if (const double cosine = of_token.cosine(e, f); std::isfinite(cosine)) {
          sums_[e * experts_ + f] += cosine;
          counts_[e * experts_ + f] += 1;
        }
  }
  std::vector<double> result() const {
    std::vector<double> means(sums_.size());
    for (std::size_t e = 0; e < experts_; ++e)
      for (std::size_t f = 0; f < experts_; ++f) {
        const std::size_t pair = std::min(e, f) * experts_ + std::max(e, f);
        means[e * experts_ + f] = e == f ? 1 : counts_[pair] > 0 ? sums_[pair] / counts_[pair] : no_cosine;
      }
    return means;
  }

 private:
  std::size_t experts_;
  std::vector<double> sums_, counts_;
};

// An expert's w1 and w3 one behind the other [2F,D]: as they lie, or with adapters in scratch memory.
Tensor gate_and_up(Context& context, const ExpertMatrix& w1, const ExpertMatrix& w3) {
  const std::int64_t intermediate = w1.row_count();
  if (!w1.adapted() && !w3.adapted()) {
    if (!w3.follows_previous()) throw std::logic_error("an expert's w3 does not lie behind its w1");
    return w1.rows(context, 0, intermediate).from_here({2 * intermediate, w1.columns()});
  }
  const Tensor both = context.scratch.take(w1.type(), {2 * intermediate, w1.columns()});
  w1.write(context, 0, both.rows(0, intermediate));
  w3.write(context, 0, both.rows(intermediate, intermediate));
  return both;
}

// What one expert of a layer makes of x [n,D]: [n,D] on the host.
std::vector<float> expert_output(Context& context, ParameterSet& parameters, const LoraConfig* lora, std::size_t layer,
                                 std::size_t expert, const Tensor& x) {
  const ArenaScope scope(context.scratch);
  const ExpertMatrix w1(context, parameters, lora, layer, expert, "w1"),
      w2(context, parameters, lora, layer, expert, "w2"), w3(context, parameters, lora, layer, expert, "w3");
  const std::int64_t rows = x.dim(0), intermediate = w1.row_count();
  const Tensor h = context.scratch.take(x.type(), {rows, 2 * intermediate}),
               a = context.scratch.take(x.type(), {rows, intermediate}), y = context.scratch.take_like(x);
  const Tensor gate_up = gate_and_up(context, w1, w3);
  context.backend.gemm(Gemm::nt, x, gate_up, h, Write::assign);
  context.backend.swiglu_forward(h, {}, a);
  context.backend.gemm(Gemm::nt, a, w2.rows(context, 0, w2.row_count()), y, Write::assign);
  std::vector<float> numbers = numbers_of(context.backend, y);
  if (!std::all_of(numbers.begin(), numbers.end(), [](float number) { return std::isfinite(number); }))
    throw std::runtime_error("what expert " + std::to_string(expert) + " of layer " + std::to_string(layer) +
                             " computes is not finite: the weights are damaged or their training diverged");
  return numbers;
}

// `count` of the places [0, length), evenly spread.
std::vector<std::int32_t> spread_places(std::int64_t count, std::int64_t length) {
  std::vector<std::int32_t> places;
  for (std::int64_t i = 0; i < count; ++i)
    places.push_back(static_cast<std::int32_t>((2 * i + 1) * length / (2 * count)));
  return places;
}

}  // namespace

double mean_over_pairs(const std::vector<double>& cosines, std::size_t experts) {
  double sum = 0, count = 0;
  for (std::size_t e = 0; e < experts; ++e)
    for (std::size_t f = e + 1; f < experts; ++f)
      if (const double cosine = cosines[e * experts + f]; std::isfinite(cosine)) sum += cosine, count += 1;
  return count > 0 ? sum / count : no_cosine;
}

std::vector<ExpertOverlap> weight_overlap(Mixtral& model, Context context, const LoraConfig* lora) {
  std::vector<ExpertOverlap> layers(static_cast<std::size_t>(model.config().num_hidden_layers));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    Gram all = gram_of(context, model, lora, l, "w1");
    const Gram w2 = gram_of(context, model, lora, l, "w2"), w3 = gram_of(context, model, lora, l, "w3");
    layers[l].w1 = all.cosines();
    layers[l].w2 = w2.cosines();
    layers[l].w3 = w3.cosines();
    all.add(w2);
    all.add(w3);
    layers[l].weights = all.cosines();
  }
  return layers;
}

std::size_t add_output_overlap(Mixtral& model, Context context, const LoraConfig* lora,
                               const std::vector<Source>& sources, std::size_t tokens,
                               std::vector<ExpertOverlap>& layers) {
  const auto experts = static_cast<std::size_t>(model.config().num_local_experts);
  const auto wanted = static_cast<std::int64_t>((tokens + sources.size() - 1) / sources.size());
  std::vector<MeanCosines> means(layers.size(), MeanCosines(experts));
  std::size_t sampled = 0;
  SampleColumns columns;
  Mixtral::Saved saved;
  for (const Source& source : sources) {
    const std::int64_t length = source.dataset->sequence_length(), count = std::min(wanted, length);
    columns.read(*source.dataset, 0, 1, length);
    context.activations.rewind({});
    context.scratch.rewind({});
    TokenBatch batch = columns.batch(context.backend, context.activations);
    batch.dropless = true;
    model.forward(context, batch, Keep::all, saved);
    const std::vector<std::int32_t> places = spread_places(count, length);
    const Tensor rows = context.activations.take(DType::i32, {count});
    context.backend.copy_from_host(rows, places.data());
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const ArenaScope scope(context.scratch);
      const Tensor& inputs = saved.layers[l].router.x;
      const Tensor x = context.scratch.take(inputs.type(), {count, inputs.dim(1)});
      context.backend.permute(inputs, rows, 1, x);
      std::vector<std::vector<float>> outputs;
      for (std::size_t e = 0; e < experts; ++e)
        outputs.push_back(expert_output(context, model.parameters(), lora, l, e, x));
      const auto width = static_cast<std::size_t>(x.dim(1));
      std::vector<std::span<const float>> of_token(experts);
      for (std::size_t t = 0; t < places.size(); ++t) {
        for (std::size_t e = 0; e < experts; ++e)
          of_token[e] = std::span<const float>(outputs[e]).subspan(t * width, width);
        Gram gram(experts);
        gram.add(of_token);
        means[l].add(gram);
      }
    }
    sampled += places.size();
  }
  context.activations.rewind({});
  context.scratch.rewind({});
  for (std::size_t l = 0; l < layers.size(); ++l) layers[l].outputs = means[l].result();
  return sampled;
}

}  // namespace smoe
