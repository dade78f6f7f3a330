// Noise that depends on its key and place alone: Philox4x32-10 (Salmon et al., SC 2011), written from the paper, the factors
// of a router's jittered input (Switch, arXiv 2101.03961), what is dropped of rows, and what NEFTune adds to embeddings (arXiv 2310.05914).
#pragma once

#include <array>
#include <cmath>

#include "tests/reference/matrix.h"

namespace smoe::reference {

inline std::array<std::uint32_t, 4> philox(std::uint64_t key, std::array<std::uint32_t, 4> counter) {
  for (std::uint32_t round = 0; round < 10; ++round) {
    const std::uint32_t k0 = static_cast<std::uint32_t>(key) + round * 0x9E3779B9u;
    const std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32) + round * 0xBB67AE85u;
    const std::uint64_t a = 0xD2511F53ull * counter[0], b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
  }
  return counter;
}

struct Noise {
  std::uint64_t key = 0;
  Index first_token = 0;  // of row 0, in the whole batch
  Index layer = 0;
  double width = 0;
};

// u [T, D], uniform in [-1, 1): 24 bits of word d % 4 of the counter (token, d / 4, layer).
inline Matrix<double> uniform_noise(const Noise& noise, Index tokens, Index D) {
  Matrix<double> draws(tokens, D);
  for (Index t = 0; t < tokens; ++t)
    for (Index d = 0; d < D; ++d) {
      const auto token = static_cast<std::uint64_t>(noise.first_token + t);
      const auto words =
          philox(noise.key, {static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                             static_cast<std::uint32_t>(d / 4), static_cast<std::uint32_t>(noise.layer)});
      draws(t, d) = double(words[d % 4] >> 8) * 0x1p-23 - 1;
    }
  return draws;
}

// factor [T, D]: 1 + width * u.
inline Matrix<double> noise_factors(const Noise& noise, Index tokens, Index D) {
  Matrix<double> factors = uniform_noise(noise, tokens, D);
  for (double& u : factors.values) u = 1 + noise.width * u;
  return factors;
}

template <typename T>
Matrix<T> apply_noise(const Matrix<T>& x, const Matrix<double>& factors) {
  Matrix<T> y = x;
  for (std::size_t i = 0; i < y.values.size(); ++i) y.values[i] *= T(factors.values[i]);
  return y;
}

struct Drops {
  std::uint64_t key = 0;
  Index stream = 0;
  double probability = 0;
  Index first_column = 0;
};

// factor [rows, D] of dropout (Srivastava et al. 2014): 0 where word c % 4 of the counter (row, c / 4, stream), c the column, is
// below probability 2^32, else 1 / (1 - probability).
inline Matrix<double> dropout_factors(const Drops& drops, const std::vector<Index>& rows, Index D) {
  Matrix<double> factors(static_cast<Index>(rows.size()), D);
  for (Index r = 0; r < factors.rows; ++r)
    for (Index d = 0; d < D; ++d) {
      const Index column = drops.first_column + d;
      const auto row = static_cast<std::uint64_t>(rows[r]);
      const auto words =
          philox(drops.key, {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                             static_cast<std::uint32_t>(column / 4), static_cast<std::uint32_t>(drops.stream)});
      factors(r, d) = double(words[column % 4]) < drops.probability * 0x1p32 ? 0 : 1 / (1 - drops.probability);
    }
  return factors;
}

inline constexpr Index embedding_layer = 0xffffffff;  // the embedding's place among the layers of the counter

// NEFTune: what is added to the embedding of each token, alpha / sqrt(L D) times u, of an example of L tokens: a document's
// part of a sequence of S, or without document_start the sequence.
inline Matrix<double> embedding_noise(std::uint64_t key, double alpha, const Ids& document_start, Index tokens, Index S,
                                      Index D) {
  Matrix<double> noise = uniform_noise({key, 0, embedding_layer}, tokens, D);
  for (Index t = 0; t < tokens; ++t) {
    Index length = 0;
    for (Index other = t / S * S; other < t / S * S + S; ++other)
      length += document_start.empty() || document_start[other] == document_start[t];
    for (Index d = 0; d < D; ++d) noise(t, d) *= alpha / std::sqrt(double(length * D));
  }
  return noise;
}

}  // namespace smoe::reference
