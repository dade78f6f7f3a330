// Reproducible random numbers for tests: the same on every machine (std distributions are not).
#pragma once

#include <cmath>
#include <numbers>
#include <random>

#include "tests/reference/layer.h"

namespace smoe::reference {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  double uniform() { return double(engine_() >> 11) * 0x1.0p-53; }  // [0, 1)
  Index below(Index bound) { return static_cast<Index>(uniform() * double(bound)); }
  double normal() {  // Box & Muller 1958
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  std::vector<double> normals(Index count, double scale = 1.0, double mean = 0.0) {
    std::vector<double> out(count);
    for (double& value : out) value = mean + scale * normal();
    return out;
  }
  Matrix<double> matrix(Index rows, Index cols, double scale = 1.0) {
    return {rows, cols, normals(rows * cols, scale)};
  }
  Ids ids(Index count, Index bound) {
    Ids out(count);
    for (auto& id : out) id = static_cast<std::int32_t>(below(bound));
    return out;
  }

 private:
  std::mt19937_64 engine_;
};

// Document starts for B sequences of S tokens: a new document opens at about one token in `mean_length`.
inline Ids random_documents(Random& random, Index sequences, Index sequence_length, double mean_length) {
  Ids out;
  for (Index b = 0; b < sequences; ++b) {
    std::int32_t start = 0;
    for (Index i = 0; i < sequence_length; ++i) {
      if (random.uniform() < 1.0 / mean_length) start = static_cast<std::int32_t>(i);
      out.push_back(start);
    }
  }
  return out;
}

// Weights of moderate size everywhere, norms around 1, so that no gradient vanishes and no softmax saturates.
inline Parameters<double> random_parameters(const ReferenceConfig& config, std::uint64_t seed) {
  Random random(seed);
  Parameters<double> p = make_parameters<double>(config);
  visit_parameters(p, [&](const std::string&, const std::vector<Index>& shape, std::vector<double>& values) {
    const bool norm = shape.size() == 1;
    const double scale = norm ? 0.2 : 1.0 / std::sqrt(double(shape[1]));
    values = random.normals(static_cast<Index>(values.size()), scale, norm ? 1.0 : 0.0);
  });
  return p;
}

// Random tokens and targets, a fraction of the targets masked; target_count is the number that is not.
inline Batch random_batch(const ReferenceConfig& config, Index sequences, Index sequence_length, std::uint64_t seed,
                          bool documents, double masked_fraction = 0.2) {
  Random random(seed);
  Batch batch{sequences, sequence_length, random.ids(sequences * sequence_length, config.vocab),
              random.ids(sequences * sequence_length, config.vocab)};
  if (documents) batch.document_start = random_documents(random, sequences, sequence_length, 3.0);
  Index count = 0;
  for (auto& target : batch.targets) {
    if (random.uniform() < masked_fraction) target = -100;
    count += target >= 0;
  }
  batch.target_count = count > 0 ? double(count) : 1.0;
  return batch;
}

}  // namespace smoe::reference
