#include "model/router_measures.h"

#include <cstddef>

namespace smoe {

void RouterMeter::begin_step() {
  rows_.clear();
  dropped_.assign(static_cast<std::size_t>(layers_), 0.0);
}

void RouterMeter::add_micro_batch(std::span<const DecoderLayer::Saved> layers) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Dispatched& dispatched = layers[l].dispatched;
    rows_.push_back(static_cast<double>(dispatched.row_weights.dim(0)));
    dropped_[l] += static_cast<double>(dispatched.row_of.elements() - dispatched.assignment_of.dim(0));
  }
}

RouterMeasures RouterMeter::measures(const Mesh& mesh) const {
  Communicator& world = mesh.group(Axis::world);
  std::vector<double> most = rows_, sums = rows_;
  sums.insert(sums.end(), dropped_.begin(), dropped_.end());
  world.all_reduce(std::span(sums), Reduce::sum, "router.measures");
  world.all_reduce(std::span(most), Reduce::max, "router.measures");

  const auto layers = static_cast<std::size_t>(layers_), micro_batches = layers == 0 ? 0 : rows_.size() / layers;
  const auto ranks = static_cast<double>(world.size());
  RouterMeasures found;
  found.dropped.assign(sums.begin() + static_cast<std::ptrdiff_t>(rows_.size()), sums.end());
  found.rank_load.assign(layers, 0.0);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const double load = sums[i] > 0 ? ranks * most[i] / sums[i] : 1.0;
    found.rank_load[i % layers] += load / static_cast<double>(micro_batches);
  }
  return found;
}

}  // namespace smoe
