#include "model/balance_units.h"

#include <fmt/format.h>

namespace smoe {
namespace {

// What a coefficient of 1 of that unit weighs each layer's B by, as a fraction of whole numbers.
struct Weight {
  double times = 1, over = 1;
};
Weight weight_of_a_layer(BalanceUnit unit, const LayerCount& of) {
  const double layers = static_cast<double>(of.layers), experts = static_cast<double>(of.experts_per_token);
  switch (unit) {
    case BalanceUnit::megablocks: return {1, layers};
    case BalanceUnit::hf: return {experts, layers};
    case BalanceUnit::smoe:
    case BalanceUnit::megatron:
    case BalanceUnit::deepspeed: break;
  }
  return {};
}

}  // namespace

double converted(double coefficient, BalanceUnit from, BalanceUnit to, const LayerCount& of) {
  if (from == to) return coefficient;
  const Weight own = weight_of_a_layer(from, of), other = weight_of_a_layer(to, of);
  return coefficient * (own.times * other.over) / (own.over * other.times);
}

std::string in_every_unit(double coefficient, BalanceUnit from, const LayerCount& of) {
  std::string text = fmt::format("{:.6g} here is", coefficient);
  const char* between = " ";
  for (const auto& [unit, name] : balance_units) {
    if (unit == from) continue;
    text += fmt::format("{}{} {:.6g}", between, name, converted(coefficient, from, unit, of));
    between = ", ";
  }
  return text;
}

}  // namespace smoe
