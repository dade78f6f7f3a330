#include "model/forced_routing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>

namespace smoe {
namespace {

constexpr float ahead = 2;

// The factor r at which E numbers 1, r, r^2, ... have a sum whose `largest`th part is the first of them. The first's share
// falls from 1 to 1 / E as r goes from 0 to 1.
double falling_factor(std::int64_t experts, double largest) {
  double low = 0, high = 1;
  for (int halvings = 0; halvings < 60; ++halvings) {
    const double r = (low + high) / 2;
    double sum = 0;
    for (std::int64_t e = experts; e-- > 0;) sum = 1 + r * sum;
    (1 / sum > largest ? low : high) = r;
  }
  return (low + high) / 2;
}

// The golden ratio's multiples, modulo 1, cover [0, 1) more evenly than any draws, wherever they begin (Weyl 1916).
double golden(std::int64_t token) {
  return std::ldexp(static_cast<double>((static_cast<std::uint64_t>(token) * 0x9E3779B97F4A7C15u) >> 11), -53);
}

}  // namespace

ForcedRouter::ForcedRouter(const ForcedRouting& wanted, std::int64_t experts, std::int64_t experts_per_token)
    : uniform_(wanted.type == ForcedRoutingType::uniform), experts_(experts), experts_per_token_(experts_per_token) {
  const auto E = static_cast<double>(experts), K = static_cast<double>(experts_per_token);
  std::vector<double> widths(static_cast<std::size_t>(experts), 1);
  if (!uniform_) {
    if (wanted.max_vio.value() >= most_max_vio(experts, experts_per_token))
      throw std::logic_error("a token takes an expert once: no MaxVio is as large as that");
    const double r = falling_factor(experts, (1 + *wanted.max_vio) / E);
    for (std::size_t e = 1; e < widths.size(); ++e) widths[e] = r * widths[e - 1];
  }
  double sum = 0;
  for (const double width : widths) sum += width;
  edges_.push_back(0);
  for (const double width : widths) edges_.push_back(edges_.back() + K * width / sum);
  edges_.back() = K;  // however the sums were rounded
}

void ForcedRouter::preferences(std::int64_t first, std::span<float> numbers) const {
  const auto E = static_cast<std::size_t>(experts_);
  for (std::size_t i = 0; i < numbers.size() / E; ++i) {
    const std::int64_t token = first + static_cast<std::int64_t>(i);
    // By turns, E consecutive tokens give each expert exactly K. Nothing falls on an edge, and the last edge stays K away.
    const double turn = (static_cast<double>(token % experts_) + 0.5) / static_cast<double>(experts_),
                 u = uniform_ ? turn : std::max(golden(token), 0x1p-53);
    double before = std::ceil(edges_[0] - u);
    for (std::size_t e = 0; e < E; ++e) {
      const double behind = std::ceil(edges_[e + 1] - u);
      numbers[i * E + e] = behind > before ? ahead : 0;
      before = behind;
    }
  }
}

std::vector<double> ForcedRouter::shares() const {
  std::vector<double> shares;
  for (std::size_t e = 0; e + 1 < edges_.size(); ++e)
    shares.push_back((edges_[e + 1] - edges_[e]) / static_cast<double>(experts_per_token_));
  return shares;
}

std::string describe(const ForcedRouting& forced) {
  switch (forced.type) {
    case ForcedRoutingType::none: return "";
    case ForcedRoutingType::uniform: return "uniform";
    case ForcedRoutingType::skewed: return fmt::format("skewed, MaxVio {}", forced.max_vio.value_or(0));
  }
  throw std::logic_error("no such forced routing");
}

}  // namespace smoe
