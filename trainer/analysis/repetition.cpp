#include "trainer/analysis/repetition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace smoe {
namespace {

constexpr double no_rate = std::numeric_limits<double>::quiet_NaN();

// Hits among pairs, sequence by sequence.
struct SequenceTally {
  double pairs = 0, hits = 0;
};

RepetitionRate ratio_of(const std::vector<SequenceTally>& sequences, double independent) {
  double pairs = 0, hits = 0, squares = 0;
  for (const auto& [of, found] : sequences) pairs += of, hits += found;
  if (pairs == 0) return {no_rate, no_rate, independent};
  const double rate = hits / pairs, n = static_cast<double>(sequences.size());
  for (const auto& [of, found] : sequences) squares += (found - rate * of) * (found - rate * of);
  return {rate, n < 2 ? no_rate : std::sqrt(n / (n - 1) * squares) / pairs, independent};
}

std::u16string set_of(std::span<const ExpertId> chosen) {
  std::u16string set(chosen.begin(), chosen.end());
  std::sort(set.begin(), set.end());
  return set;
}

bool have_common(const std::u16string& a, const std::u16string& b) {
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) return true;
    ++(a[i] < b[j] ? i : j);
  }
  return false;
}

double square(std::size_t count) { return static_cast<double>(count) * static_cast<double>(count); }

// Whether two sets are apart is the sum over all S inside both of (-1)^|S|. So the probability that they are is the sum of
// (-1)^|S| P(S inside a set)^2: the subsets of each set once, in place of every pair of sets.
double apart_by_subsets(const std::vector<CountedSet>& sets) {
  std::unordered_map<std::u16string, std::size_t> inside;
  std::u16string part;
  for (const auto& [experts, count] : sets)
    for (std::size_t members = 0; members < std::size_t{1} << experts.size(); ++members) {
      part.clear();
      for (std::size_t i = 0; i < experts.size(); ++i)
        if (members >> i & 1) part += experts[i];
      inside[part] += count;
    }
  double even = 0, odd = 0;  // whole numbers, so that their order does not matter
  for (const auto& [subset, count] : inside) (subset.size() % 2 ? odd : even) += square(count);
  return even - odd;
}

double apart_by_pairs(const std::vector<CountedSet>& sets) {
  double apart = 0;
  for (const CountedSet& a : sets)
    for (const CountedSet& b : sets)
      if (!have_common(a.experts, b.experts)) apart += static_cast<double>(a.count) * static_cast<double>(b.count);
  return apart;
}

}  // namespace

double meeting_probability(const std::vector<CountedSet>& sets) {
  std::size_t all = 0, largest = 0;
  for (const auto& [experts, count] : sets) all += count, largest = std::max(largest, experts.size());
  if (all == 0) return no_rate;
  const bool few_subsets = largest < 24 && std::size_t{1} << largest < sets.size();
  return 1 - (few_subsets ? apart_by_subsets(sets) : apart_by_pairs(sets)) / square(all);
}

double uniform_first_choice(std::size_t experts) { return 1 / static_cast<double>(experts); }

double uniform_top_k(std::size_t experts, std::size_t experts_per_token) {
  double apart = 1;  // C(E-K,K) / C(E,K), factor by factor
  for (std::size_t i = 0; i < experts_per_token; ++i)
    apart *= experts < 2 * experts_per_token
                 ? 0
                 : static_cast<double>(experts - experts_per_token - i) / static_cast<double>(experts - i);
  return 1 - apart;
}

Repetition repetition_of(const Assignments& table, const AnalysedSource& source, std::size_t layer) {
  std::vector<SequenceTally> first(source.tokens / table.sequence_length), any(first.size());
  std::vector<std::size_t> first_counts(table.experts);
  std::unordered_map<std::u16string, std::size_t> set_counts;
  Repetition found;
  std::u16string before, set;
  for (std::size_t i = 0; i < source.tokens; ++i) {
    const std::size_t t = source.first + i, sequence = i / table.sequence_length;
    set = set_of(table.chosen(layer, t));
    ++set_counts[set];
    ++first_counts[table.first_choice(layer, t)];
    if (table.follows[t]) {
      ++found.pairs;
      first[sequence].pairs += 1;
      any[sequence].pairs += 1;
      if (table.first_choice(layer, t) == table.first_choice(layer, t - 1)) first[sequence].hits += 1;
      if (have_common(before, set)) any[sequence].hits += 1;
    }
    std::swap(before, set);
  }
  double squares = 0;
  for (const std::size_t count : first_counts) squares += square(count);
  std::vector<CountedSet> sets;
  for (const auto& [experts, count] : set_counts) sets.push_back({experts, count});
  found.first_choice = ratio_of(first, squares / square(source.tokens));
  found.top_k = ratio_of(any, meeting_probability(sets));
  return found;
}

}  // namespace smoe
