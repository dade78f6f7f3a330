// How often neighbouring tokens go to the same experts (arXiv 2401.04088, table 5 and figure 10), and what chance alone
// would make of it.
//
// A pair is tokens i and i + 1 of one sequence and of one document. It repeats its first choice where the first choices are
// one expert, and its top K where the two sets of K have an expert in common. The paper holds this against experts drawn
// evenly: 1/E, and 1 - C(E-K,K)/C(E,K). Those are too low where load is uneven: two strangers meet more often at an expert that
// takes more. So beside them stands what independent neighbours of this source and layer would do: the sum of p_e^2 over the
// shares of first choices, and of the sets that tokens chose the probability that two drawn at random have an expert in common.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

struct RepetitionRate {
  double rate = 0;  // of the pairs; not a number where there is none
  // Of sequences as the units that were drawn, since pairs of one are not independent (a ratio estimate: Cochran, Sampling
  // Techniques, 1977, section 6.3). Not a number of fewer than two sequences.
  double standard_error = 0;
  double independent = 0;  // were neighbours independent, at the shares that are there
};

struct Repetition {
  std::size_t pairs = 0;
  RepetitionRate first_choice, top_k;
};

Repetition repetition_of(const Assignments& table, const AnalysedSource& source, std::size_t layer);

// Of experts drawn evenly.
double uniform_first_choice(std::size_t experts);
double uniform_top_k(std::size_t experts, std::size_t experts_per_token);

// A token's set of experts, in ascending order, and how many tokens chose it.
struct CountedSet {
  std::u16string experts;
  std::size_t count = 0;
};
// The probability that two sets drawn independently, each by its count, have an expert in common; exact.
double meeting_probability(const std::vector<CountedSet>& sets);

}  // namespace smoe
