#include "trainer/study/study_numbers.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace smoe {
namespace {

constexpr double two_sided = 0.975;  // of a 95% interval

// Continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method.
double beta_fraction(double x, double a, double b) {
  constexpr double tiny = 1e-300, enough = 1e-16;
  const auto away_from_zero = [](double value) { return std::abs(value) < tiny ? tiny : value; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m <= 10'000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    for (const double term : {even, odd}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      fraction *= c * d;
    }
    if (std::abs(c * d - 1) < enough) break;
  }
  return fraction;
}

// I_x(a, b), regularised; the fraction converges quickly below the turn.
double incomplete_beta(double x, double a, double b) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a : 1 - front * beta_fraction(1 - x, b, a) / b;
}

// P(T > t), t >= 0.
double upper_tail(double t, double degrees) {
  return 0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5);
}

double variance_of(std::span<const double> values, double mean) {
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(values.size() - 1);
}

std::vector<double> finite(std::span<const double> values) {
  std::vector<double> kept;
  std::copy_if(values.begin(), values.end(), std::back_inserter(kept),
               [](double value) { return std::isfinite(value); });
  return kept;
}

}  // namespace

double student_t_quantile(double p, double degrees) {
  if (!(p > 0 && p < 1) || !(degrees > 0)) throw std::logic_error("a t quantile needs p in (0, 1) and degrees > 0");
  if (p == 0.5) return 0;
  if (p < 0.5) return -student_t_quantile(1 - p, degrees);
  double low = 0, high = 1;
  while (upper_tail(high, degrees) > 1 - p && high < 1e300) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = low + (high - low) / 2;
    (upper_tail(middle, degrees) > 1 - p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

Summary summarise(std::span<const double> values) {
  const std::vector<double> kept = finite(values);
  Summary summary{.n = kept.size()};
  if (kept.empty()) return summary;
  const auto n = static_cast<double>(kept.size());
  summary.mean = std::accumulate(kept.begin(), kept.end(), 0.0) / n;
  if (kept.size() == 1) return summary;
  summary.sd = std::sqrt(variance_of(kept, summary.mean));
  summary.half = student_t_quantile(two_sided, n - 1) * summary.sd / std::sqrt(n);
  return summary;
}

double median(std::vector<double> values) {
  values = finite(values);
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Difference paired_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) throw std::logic_error("paired samples of different sizes");
  std::vector<double> differences(a.size());
  std::transform(a.begin(), a.end(), b.begin(), differences.begin(), std::minus<>());
  const Summary summary = summarise(differences);
  return {.n = summary.n, .paired = true, .mean = summary.mean, .half = summary.half};
}

Difference welch_difference(std::span<const double> a, std::span<const double> b) {
  const Summary of_a = summarise(a), of_b = summarise(b);
  Difference difference{.n = std::min(of_a.n, of_b.n), .paired = false, .mean = of_a.mean - of_b.mean};
  if (difference.n < 2) return difference;
  const auto n_a = static_cast<double>(of_a.n), n_b = static_cast<double>(of_b.n);
  const double part_a = of_a.sd * of_a.sd / n_a, part_b = of_b.sd * of_b.sd / n_b, sum = part_a + part_b;
  // Both without spread: any number of degrees gives an interval of no width.
  const double degrees =
      sum > 0 ? sum * sum / (part_a * part_a / (n_a - 1) + part_b * part_b / (n_b - 1)) : n_a + n_b - 2;
  difference.half = student_t_quantile(two_sided, degrees) * std::sqrt(sum);
  return difference;
}

std::vector<std::size_t> pareto_front(std::span<const std::pair<double, double>> points) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (std::isfinite(points[i].first) && std::isfinite(points[i].second)) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return points[a] < points[b]; });
  std::vector<std::size_t> front;
  for (const std::size_t i : order)
    if (front.empty() || points[i].second < points[front.back()].second || points[i] == points[front.back()])
      front.push_back(i);
  return front;
}

}  // namespace smoe
