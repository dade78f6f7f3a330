// The one measure of how far numbers that were found are from those that were expected. Every comparison of arrays in
// these tests goes through it, so that a NaN cannot slip through any: std::max(worst, NaN) is worst, and a worst that is
// NaN gives way to the next number.
//
// Arrays are anything with size() and [], of numbers of any type; found comes first, expected second, which may be written
// out in braces. What is not finite, on either side or on both, is infinitely far; so are arrays of different sizes.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <sstream>
#include <string>
#include <utility>

namespace smoe::test {

template <class Numbers>
concept Array = requires(const Numbers& numbers) {
  numbers[numbers.size()];
};

// |found - expected|.
inline double difference(double found, double expected) {
  const double distance = std::abs(found - expected);
  return std::isfinite(distance) ? distance : std::numeric_limits<double>::infinity();
}

// A difference in units of a scale; where that is zero, only nothing is no deviation.
inline double in_units(double difference, double scale) {
  if (difference == 0) return 0;
  return scale > 0 && std::isfinite(scale) ? difference / scale : std::numeric_limits<double>::infinity();
}

// The worst of many deviations, and what it was of.
struct Worst {
  double value = 0;
  std::string name = "nothing";

  void add(double deviation, std::string of = {}) {
    if (std::isnan(deviation)) deviation = std::numeric_limits<double>::infinity();
    if (deviation > value) value = deviation, name = std::move(of);
  }
};

// The largest difference of two arrays, where it is, and the largest |expected|.
struct ArrayDifference {
  double largest = 0;
  std::size_t at = 0;
  double scale = 0;

  double in_units(double zero_scale) const { return test::in_units(largest, scale > 0 ? scale : zero_scale); }
};

template <Array Found, Array Expected = Found>
ArrayDifference array_difference(const Found& found, const Expected& expected) {
  ArrayDifference result;
  if (found.size() != expected.size()) result.largest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < expected.size() && i < found.size(); ++i) {
    const double distance = difference(static_cast<double>(found[i]), static_cast<double>(expected[i]));
    if (distance > result.largest) result.largest = distance, result.at = i;
    const double size = std::abs(static_cast<double>(expected[i]));
    if (size > result.scale) result.scale = size;
  }
  return result;
}

// The largest difference, as it is.
template <Array Found, Array Expected = Found>
double largest_difference(const Found& found, const Expected& expected) {
  return array_difference(found, expected).largest;
}

// The largest size of a number.
template <Array Numbers>
double largest(const Numbers& numbers) {
  Worst worst;
  for (const auto number : numbers) worst.add(difference(static_cast<double>(number), 0));
  return worst.value;
}

// In units of the largest |expected|. Where all that is expected is zero, so must be all that is found, or else it is in
// units of zero_scale: the size of terms that cancel.
template <Array Found, Array Expected = Found>
double deviation(const Found& found, const Expected& expected, double zero_scale = 0) {
  return array_difference(found, expected).in_units(zero_scale);
}

// Of single numbers: in units of the expected one.
inline double deviation(double found, double expected) {
  return in_units(difference(found, expected), std::abs(expected));
}

// The largest of the deviations of the entries, each in units of its own expected one.
template <Array Found, Array Expected = Found>
double elementwise_deviation(const Found& found, const Expected& expected) {
  Worst worst;
  if (found.size() != expected.size()) worst.add(std::numeric_limits<double>::infinity());
  for (std::size_t i = 0; i < expected.size() && i < found.size(); ++i)
    worst.add(deviation(static_cast<double>(found[i]), static_cast<double>(expected[i])));
  return worst.value;
}

// Empty where the deviation is within the tolerance; otherwise the worst entry and by how much. A tolerance of 0 asks for
// the same numbers, of which then any may be infinite or NaN: what is only moved is moved as it is.
template <Array Found, Array Expected = Found>
std::string disagreement(const Found& found, const Expected& expected, double tolerance, double zero_scale = 0) {
  std::ostringstream message;
  message.precision(9);
  if (found.size() != expected.size()) {
    message << found.size() << " numbers, expected " << expected.size();
    return message.str();
  }
  ArrayDifference d = array_difference(found, expected);
  if (tolerance == 0) {
    d.largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto a = static_cast<double>(found[i]), b = static_cast<double>(expected[i]);
      if (a == b || (std::isnan(a) && std::isnan(b)) || difference(a, b) <= d.largest) continue;
      d.largest = difference(a, b), d.at = i;
    }
  }
  if (d.in_units(zero_scale) <= tolerance) return {};
  message << "entry " << d.at << " of " << expected.size() << ": found " << found[d.at] << ", expected "
          << expected[d.at] << "; deviation " << d.in_units(zero_scale) << " of the largest entry, allowed "
          << tolerance;
  return message.str();
}

}  // namespace smoe::test
