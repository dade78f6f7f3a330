#include "model/router_measures.h"

#include <cmath>
#include <cstddef>

#include "kernels/host_view.h"

namespace smoe {
namespace {
constexpr std::int64_t parts = 3;  // of the language-model, the balance and the z loss; and as many sums over tokens
}

RouterMeter::RouterMeter(Backend& backend, const ModelConfig& model)
    : backend_(backend),
      layers_(model.num_hidden_layers),
      experts_(model.num_local_experts),
      memory_(backend),
      sums_(memory_.take(DType::f64, {layers_, parts})),
      gradients_(memory_.take({layers_, parts, experts_, model.hidden_size})) {}

void RouterMeter::begin_step(bool measuring) {
  measuring_ = measuring;
  found_.reset();
  rows_.clear();
  dropped_.assign(static_cast<std::size_t>(layers_), 0.0);
  tokens_ = 0;
  if (!measuring) return;
  backend_.fill(sums_, 0.0f);
  backend_.fill(gradients_, 0.0f);
}

void RouterMeter::ask_for_parts(std::vector<RouterGradient>& gradients) const {
  for (std::int64_t l = 0; l < layers_ && measuring_; ++l)
    gradients[static_cast<std::size_t>(l)].gate_parts =
        gradients_.rows(l, 1).reshape({parts, experts_, gradients_.dim(3)});
}

void RouterMeter::add_micro_batch(std::span<const DecoderLayer::Saved> layers, std::int64_t tokens) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Dispatched& dispatched = layers[l].dispatched;
    rows_.push_back(static_cast<double>(dispatched.row_weights.dim(0)));
    dropped_[l] += static_cast<double>(tokens * dispatched.row_of.dim(1) - dispatched.assignment_of.dim(0));
  }
  tokens_ += static_cast<double>(tokens);
}

const RouterMeasures& RouterMeter::measures(const Mesh& mesh) {
  if (found_) return *found_;
  Communicator& world = mesh.group(Axis::world);
  const auto layers = static_cast<std::size_t>(layers_), batches = layers == 0 ? 0 : rows_.size() / layers;
  std::vector<double> most = rows_, all = rows_;
  all.insert(all.end(), dropped_.begin(), dropped_.end());
  all.push_back(tokens_);
  if (measuring_) {
    all.resize(all.size() + layers * parts);
    backend_.copy_to_host(all.data() + all.size() - layers * parts, sums_);
  }
  world.all_reduce(std::span(all), Reduce::sum, "router.measures");
  world.all_reduce(std::span(most), Reduce::max, "router.measures");

  RouterMeasures& found = found_.emplace();
  found.rank_load.assign(layers, 0.0);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const double load = all[i] > 0 ? world.size() * most[i] / all[i] : 1.0;
    found.rank_load[i % layers] += load / static_cast<double>(batches);
  }
  const double* next = all.data() + rows_.size();
  found.dropped.assign(next, next + layers);
  if (!measuring_) return found;
  const double tokens = next[layers];
  next += layers + 1;
  for (std::size_t l = 0; l < layers; ++l, next += parts) {
    found.entropy.push_back(next[0] / tokens);
    found.logit_norm.push_back(next[1] / tokens);
    found.margin.push_back(next[2] / tokens);
  }
  read_gradients(mesh, found);
  return found;
}

void RouterMeter::read_gradients(const Mesh& mesh, RouterMeasures& found) {
  mesh.group(Axis::world).all_reduce(gradients_, Reduce::sum, "router.measures");
  const HostView view(backend_, gradients_, staging_);
  view.fetch();
  const auto gate = static_cast<std::size_t>(experts_ * gradients_.dim(3));
  for (std::size_t l = 0; l < static_cast<std::size_t>(layers_); ++l) {
    const auto part = [&](std::size_t i) { return view.numbers().subspan((l * parts + i) * gate, gate); };
    const auto dot = [&](std::size_t i, std::size_t j) {
      double sum = 0;
      for (std::size_t n = 0; n < gate; ++n) sum += static_cast<double>(part(i)[n]) * static_cast<double>(part(j)[n]);
      return sum;
    };
    const double norms[parts] = {std::sqrt(dot(0, 0)), std::sqrt(dot(1, 1)), std::sqrt(dot(2, 2))};
    const auto cosine = [&](std::size_t i, std::size_t j) {
      return norms[i] == 0 || norms[j] == 0 ? 0.0 : dot(i, j) / (norms[i] * norms[j]);
    };
    found.gradient_lm.push_back(norms[0]);
    found.gradient_balance.push_back(norms[1]);
    found.gradient_z.push_back(norms[2]);
    found.cosine_lm_balance.push_back(cosine(0, 1));
    found.cosine_lm_z.push_back(cosine(0, 2));
    found.cosine_balance_z.push_back(cosine(1, 2));
  }
}

}  // namespace smoe
