#include "model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace smoe {
namespace {

// theta^(2i/C): the wavelength of pair i over 2 pi.
double period(double theta, std::int64_t i, std::int64_t head_dim) {
  return std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(head_dim));
}

// Llama 3.1: long waves are stretched, short ones kept, those between blended by how often they fit the original length.
float stretch_llama3(float frequency, const RopeScaling& s) {
  const double original = static_cast<double>(s.original_max_position_embeddings);
  const auto longest_kept = static_cast<float>(original / s.high_freq_factor),
             shortest_stretched = static_cast<float>(original / s.low_freq_factor);
  const auto factor = static_cast<float>(s.factor);
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > shortest_stretched) return frequency / factor;
  if (wavelength < longest_kept) return frequency;
  const float kept = (static_cast<float>(original) / wavelength - static_cast<float>(s.low_freq_factor)) /
                     static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  return (1 - kept) * frequency / factor + kept * frequency;
}

// The pair, as a real number, that turns so many times over the original positions.
double pair_of_rotations(double rotations, double theta, std::int64_t head_dim, const RopeScaling& s) {
  return static_cast<double>(head_dim) *
         std::log(static_cast<double>(s.original_max_position_embeddings) / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

// YaRN: pairs below `first` keep their frequency, those above `last` are stretched, and between them a linear ramp blends.
void stretch_yarn(std::vector<float>& frequencies, double theta, std::int64_t head_dim, const RopeScaling& s) {
  double first = pair_of_rotations(s.beta_fast, theta, head_dim, s),
         last = pair_of_rotations(s.beta_slow, theta, head_dim, s);
  if (s.truncate) first = std::floor(first), last = std::ceil(last);
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(head_dim - 1));
  if (first == last) last += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const auto base = static_cast<float>(period(theta, static_cast<std::int64_t>(i), head_dim));
    const float plain = 1 / base, stretched = 1 / (static_cast<float>(s.factor) * base);
    const float ramp = (static_cast<float>(i) - static_cast<float>(first)) / static_cast<float>(last - first);
    const float kept = 1 - std::clamp(ramp, 0.0f, 1.0f);
    frequencies[i] = stretched * (1 - kept) + plain * kept;
  }
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config) {
  const std::int64_t head_dim = config.head_size();
  const RopeScaling& s = config.rope_scaling;
  RopeFrequencies rope{.frequencies = std::vector<float>(static_cast<std::size_t>(head_dim / 2)), .scale = 1.0f};
  for (std::size_t i = 0; i < rope.frequencies.size(); ++i)
    rope.frequencies[i] = static_cast<float>(1.0 / period(config.rope_theta, static_cast<std::int64_t>(i), head_dim));
  switch (s.type) {
    case RopeType::standard:
    case RopeType::dynamic:  // stretches the base for sequences past max_position_embeddings, which are refused
      break;
    case RopeType::linear:
      for (float& frequency : rope.frequencies) frequency /= static_cast<float>(s.factor);
      break;
    case RopeType::yarn:
      stretch_yarn(rope.frequencies, config.rope_theta, head_dim, s);
      rope.scale = static_cast<float>(s.attention_factor);
      break;
    case RopeType::llama3:
      for (float& frequency : rope.frequencies) frequency = stretch_llama3(frequency, s);
      break;
  }
  return rope;
}

}  // namespace smoe
