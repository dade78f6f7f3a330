// Steers the weight of the balance loss until MaxVio is at a target: how much balance a model needs is known, and how heavy a
// loss brings it about changes with the model, the data and the length of a run.
//
// v is MaxVio of a step's assignments over all ranks and micro-batches: max_i (n_i - mean) / mean, the largest of all layers
// (arXiv 2408.15664, eq. 4). With the configured coefficients times exp(u), after each update of the weights:
//   s += (v - s) / min(steps seen, window)       smoothed: the mean of the first steps, then exponential
//   e  = log(s / target), in [-1, 1]             in logarithms, in which what a factor does is alike at every size
//   I += integral_gain * e                       unless u is at a bound and would be pushed beyond it (anti-windup)
//   u  = proportional_gain * e + I, in [-range, range]
//
// The gains: a router follows its loss with some lag, of tens to hundreds of steps, and MaxVio falls about as a power of the
// coefficient. The integral, which alone makes s = target in the end, takes proportional_gain / integral_gain = 100 steps to
// move u as far as the proportional term does at once. Where MaxVio is a first-order lag of T steps behind the coefficient to
// the power -a, the loop has a phase margin of 40 degrees or more for T up to 500 and a up to 3, and of 30 for T of 1000. The
// window keeps a step's noise out of u: 20 steps leave 1/6 of it, of which u takes half. An error counts for no more than a
// factor of e, so that a router that has collapsed, and answers late, does not drive the coefficient far beyond what holds
// it later: to a thousandth or to a thousand times it takes at least 1300 steps.
//
// All of it is a function of whole numbers and of the state, the same to the bit on every layout.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

namespace smoe {

// (largest - mean) / mean of one layer's loads, in any unit; 0 where it has none.
inline double max_vio_of_layer(std::span<const double> loads) {
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double mean = total / static_cast<double>(loads.size());
  return total > 0.0 ? (*std::max_element(loads.begin(), loads.end()) - mean) / mean : 0.0;
}
// The largest of all layers. counts: [L,E] assignments.
double max_vio(std::span<const double> counts, std::int64_t experts);

class MaxVioController {
 public:
  static constexpr double proportional_gain = 0.5, integral_gain = 0.005;
  static constexpr std::int64_t window = 20;          // steps
  static constexpr double range = 6.907755278982137;  // log(1000): a thousandth to a thousand times

  // All that a resumed run needs.
  struct State {
    std::int64_t steps = 0;  // seen
    double smoothed = 0;     // s
    double integral = 0;     // I

    bool operator==(const State&) const = default;
  };

  explicit MaxVioController(double target) : target_(target) {}

  // After an update.
  void observe(double max_vio);
  // Of the configured coefficients, for the next step.
  double factor() const;

  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  double error() const;   // e
  double output() const;  // u before its bounds

  double target_;
  State state_;
};

}  // namespace smoe
