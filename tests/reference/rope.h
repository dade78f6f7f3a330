// Rotary position embedding (Su et al. 2021) in the convention of Hugging Face: within a head of C numbers the pairs
// are (i, i + C/2), turned by position * theta^(-2i/C).
#pragma once

#include <cmath>
#include <vector>

#include "tests/reference/matrix.h"

namespace smoe::reference {

// [C/2]: theta^(-2i/C). Frequencies and angles are rounded to f32, where `transformers` rounds them: released weights have
// only ever met these angles, and at position 32,000 the rounding moves a cosine by 1e-3.
inline std::vector<float> rope_frequencies(double theta, Index head_dim) {
  std::vector<float> frequencies;
  for (Index i = 0; i < head_dim / 2; ++i)
    frequencies.push_back(static_cast<float>(1.0 / std::pow(theta, 2.0 * double(i) / double(head_dim))));
  return frequencies;
}

// [positions, C]: a row holds the cosines of the C/2 angles of its position, then their sines, both times scale.
inline Matrix<double> rope_table(const std::vector<float>& frequencies, double scale, Index positions) {
  const Index half = static_cast<Index>(frequencies.size());
  Matrix<double> table(positions, 2 * half);
  for (Index p = 0; p < positions; ++p)
    for (Index i = 0; i < half; ++i) {
      const double angle = static_cast<float>(p) * frequencies[i];
      table(p, i) = scale * std::cos(angle);
      table(p, half + i) = scale * std::sin(angle);
    }
  return table;
}

inline Matrix<double> rope_table(double theta, Index positions, Index head_dim) {
  return rope_table(rope_frequencies(theta, head_dim), 1.0, positions);
}

// direction +1 turns forward; -1 is the inverse rotation, which is also the transpose.
template <typename T>
void rope_rotate(Matrix<T>& x /*[T, heads * C]*/, Index rotated_heads, const Ids& positions,
                 const Matrix<double>& table, double direction) {
  const Index head_dim = table.cols, half = head_dim / 2;
  for (Index t = 0; t < x.rows; ++t)
    for (Index head = 0; head < rotated_heads; ++head)
      for (Index i = 0; i < half; ++i) {
        T& first = x(t, head * head_dim + i);
        T& second = x(t, head * head_dim + half + i);
        const T cosine(table(positions[t], i)), sine(direction * table(positions[t], half + i));
        const T a = first, b = second;
        first = a * cosine - b * sine;
        second = b * cosine + a * sine;
      }
}

template <typename T>
void rope_forward(Matrix<T>& x, Index rotated_heads, const Ids& positions, const Matrix<double>& table) {
  rope_rotate(x, rotated_heads, positions, table, 1.0);
}

template <typename T>
void rope_backward(Matrix<T>& dx, Index rotated_heads, const Ids& positions, const Matrix<double>& table) {
  rope_rotate(dx, rotated_heads, positions, table, -1.0);
}

}  // namespace smoe::reference
