// The statistics of a study: few repetitions of each setting, compared with one another.
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace smoe {

// Of Student's distribution with `degrees` > 0 of freedom, which need not be whole; p in (0, 1).
double student_t_quantile(double p, double degrees);

// NaN where too few values leave it open: the mean of none, the rest of one.
struct Summary {
  std::size_t n = 0;
  double mean = std::numeric_limits<double>::quiet_NaN();
  double sd = std::numeric_limits<double>::quiet_NaN();    // of the sample, over n - 1
  double half = std::numeric_limits<double>::quiet_NaN();  // the 95% interval of the mean is mean - half to mean + half

  double low() const { return mean - half; }
  double high() const { return mean + half; }
};

// Values that are not finite are left out.
Summary summarise(std::span<const double> values);

// The middle one, or the mean of the middle two; NaN of none. Values that are not finite are left out.
double median(std::vector<double> values);

// One setting minus another.
struct Difference {
  std::size_t n = 0;    // pairs; or, unpaired, values of the smaller side
  bool paired = false;  // each value with its own partner
  double mean = std::numeric_limits<double>::quiet_NaN();
  double half = std::numeric_limits<double>::quiet_NaN();  // of the 95% interval; NaN: too few values

  // Whether the interval leaves the sign open. One without an interval says nothing either way.
  bool within_noise() const { return mean - half <= 0 && mean + half >= 0; }
  bool has_interval() const { return half >= 0; }
};

// Of a[i] - b[i], by Student's t of the differences: what partners share drops out. Pairs with a value that is not finite are left out.
Difference paired_difference(std::span<const double> a, std::span<const double> b);

// Of the means of two unpaired samples, by Welch's t (Biometrika 34, 1947), whose variances may differ.
Difference welch_difference(std::span<const double> a, std::span<const double> b);

// Of points (x, y), both better when smaller: those that no other beats in one without losing in the other, by rising x. Of
// equal ones all; those with a number that is not finite never.
std::vector<std::size_t> pareto_front(std::span<const std::pair<double, double>> points);

}  // namespace smoe
