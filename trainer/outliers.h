// Steps that look odd: a loss or a gradient norm that is finite but lies far above the recent ones, as after a damaged batch.
// Such a step may be refused, as one that is not finite is (train.outlier_deviations; llm.c calls the measure a z-score).
//
// What a step is held against are the numbers of the last accepted steps with targets. So neither what was refused nor a
// NaN is ever among them, and since they are part of TrainingState, a resumed run decides as the uninterrupted one. In
// a window of W, a level that rises steadily stands at most sqrt(3) = 1.7 deviations above its mean.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace smoe {

inline constexpr std::size_t outlier_window = 128;  // steps that are remembered
inline constexpr std::size_t least_to_judge = 32;   // with fewer, no step is an outlier
inline constexpr double least_deviation = 1e-3;     // of the mean: where all are equal, rounding is no outlier

// By how many standard deviations (of `recent`, as a whole population) `value` lies above the mean of `recent`; below it,
// negative. 0 where there are too few, or the value is not finite.
double deviations_above(double value, std::span<const double> recent);

// Takes a number that is finite among the recent ones, the oldest first.
void remember(double value, std::vector<double>& recent);

}  // namespace smoe
