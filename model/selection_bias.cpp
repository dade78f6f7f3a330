#include "model/selection_bias.h"

#include <cstddef>
#include <numeric>
#include <stdexcept>

namespace smoe {

SelectionBias::SelectionBias(Backend& backend, Arena& persistent, Mixtral& model)
    : backend_(backend),
      persistent_(persistent),
      model_(model),
      layers_(model.config().num_hidden_layers),
      experts_(model.config().num_local_experts),
      updated_(static_cast<std::size_t>(experts_)) {}

void SelectionBias::set(std::span<const float> values) {
  if (static_cast<std::int64_t>(values.size()) != layers_ * experts_)
    throw std::logic_error("a selection bias is one number an expert and layer");
  values_.assign(values.begin(), values.end());
  if (tensor_.empty()) {
    tensor_ = persistent_.take({layers_, experts_});
    model_.use_selection_bias(tensor_);
  }
  backend_.copy_from_host(tensor_, values_.data());
}

void SelectionBias::begin_at_zero() { set(std::vector<float>(static_cast<std::size_t>(layers_ * experts_))); }

void SelectionBias::update(std::span<const double> counts, double rate) {
  if (empty() || counts.size() != values_.size())
    throw std::logic_error("a selection bias is updated where there is one, by a count for each of its numbers");
  const auto experts = static_cast<std::size_t>(experts_);
  for (std::size_t first = 0; first < values_.size(); first += experts) {
    const std::span<const double> layer = counts.subspan(first, experts);
    const double total = std::accumulate(layer.begin(), layer.end(), 0.0);
    for (std::size_t i = 0; i < experts; ++i) {
      const double load = layer[i] * static_cast<double>(experts);  // beside the total: both whole, so exact
      const double sign = load < total ? 1.0 : load > total ? -1.0 : 0.0;
      updated_[i] = static_cast<double>(values_[first + i]) + rate * sign;
    }
    const double mean = std::accumulate(updated_.begin(), updated_.end(), 0.0) / static_cast<double>(experts);
    for (std::size_t i = 0; i < experts; ++i) values_[first + i] = static_cast<float>(updated_[i] - mean);
  }
  backend_.copy_from_host(tensor_, values_.data());
}

}  // namespace smoe
