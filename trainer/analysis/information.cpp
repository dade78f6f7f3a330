#include "trainer/analysis/information.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "kernels/philox.h"
#include "trainer/analysis/token_groups.h"

namespace smoe {
namespace {

// n log2 n, from a list where n is small.
class CountLogs {
 public:
  CountLogs() {
    for (std::size_t n = 1; n < small_.size(); ++n) small_[n] = of_any(n);
  }
  double operator()(std::size_t n) const { return n < small_.size() ? small_[n] : of_any(n); }
  double sum(std::span<const std::size_t> counts) const {
    double total = 0;
    for (const std::size_t n : counts) total += (*this)(n);
    return total;
  }

 private:
  static double of_any(std::size_t n) { return static_cast<double>(n) * std::log2(static_cast<double>(n)); }
  std::array<double, 4096> small_{};
};

// A permutation of n places: number `round` of those that belong to a seed and a name.
class Permutations {
 public:
  Permutations(std::uint64_t seed, const char* name, std::size_t size)
      : key_(key_of(seed, name, std::strlen(name))), order_(size) {}

  // Fisher and Yates, with 64 bits a draw: what 2^64 leaves over a size is nothing.
  std::span<const std::uint32_t> draw(std::uint64_t round) {
    std::iota(order_.begin(), order_.end(), 0u);
    for (std::size_t i = order_.size(); i > 1; --i) {
      const auto words = philox(key_, i, round);
      const std::uint64_t bits = std::uint64_t{words[0]} << 32 | words[1];
      const auto below = static_cast<std::size_t>(static_cast<unsigned __int128>(bits) * i >> 64);
      std::swap(order_[i - 1], order_[below]);
    }
    return order_;
  }

 private:
  std::uint64_t key_;
  std::vector<std::uint32_t> order_;
};

// One table of counts, domain or token by expert, whose margins no permutation changes: only the sum over its cells does.
class PermutedInformation {
 public:
  PermutedInformation() = default;
  // Sums of n log2 n over rows, over columns and over cells, of `total` counts in all.
  PermutedInformation(double rows, double columns, double cells, double total)
      : rows_(rows), columns_(columns), total_(total), observed_(of(cells)) {}

  void add_permuted(double cells) {
    const double bits = of(cells);
    sum_ += bits;
    // The same counts in another order may differ in the last bits.
    as_high_ += bits >= observed_ - 1e-12 ? 1 : 0;
    ++permutations_;
  }

  Information result() const {
    constexpr double none = std::numeric_limits<double>::quiet_NaN();
    Information found;
    found.bits = observed_;
    found.entropy = std::max(0.0, std::log2(total_) - columns_ / total_);
    found.permuted = permutations_ ? sum_ / permutations_ : none;
    found.corrected = found.bits - found.permuted;
    found.of_entropy = found.entropy > 0 ? found.corrected / found.entropy : none;
    found.p = permutations_ ? (1 + as_high_) / (1 + permutations_) : none;
    return found;
  }

 private:
  double of(double cells) const { return std::max(0.0, (cells - rows_ - columns_) / total_ + std::log2(total_)); }

  double rows_ = 0, columns_ = 0, total_ = 1, observed_ = 0;
  double sum_ = 0, as_high_ = 0, permutations_ = 0;
};

// What both ways to count have in common: of each token's choices the first, or all.
constexpr std::size_t ways = 2;
std::size_t counted(const Assignments& table, std::size_t way) { return way == 0 ? 1 : table.experts_per_token; }

using LayerTests = std::array<PermutedInformation, ways>;

std::vector<LayerInformation> layer_results(const std::vector<LayerTests>& tests) {
  std::vector<LayerInformation> found;
  for (const auto& [first, all] : tests) found.push_back({first.result(), all.result()});
  return found;
}

// [E] over all tokens.
std::vector<std::size_t> expert_counts(const Assignments& table, std::size_t layer, std::size_t of_each) {
  std::vector<std::size_t> counts(table.experts);
  for (std::size_t t = 0; t < table.tokens(); ++t)
    for (const ExpertId e : table.chosen(layer, t).first(of_each)) ++counts[e];
  return counts;
}

}  // namespace

std::vector<LayerInformation> domain_information(const Assignments& table, const PermutationOptions& options) {
  const std::size_t domains = table.sources.size(), sequences = table.sequences(), experts = table.experts;
  if (domains < 2) return {};
  const CountLogs logs;
  std::vector<std::uint32_t> domain_of(sequences);
  std::vector<std::size_t> tokens;
  for (std::size_t d = 0; d < domains; ++d) {
    const AnalysedSource& source = table.sources[d];
    tokens.push_back(source.tokens);
    for (std::size_t s = source.first / table.sequence_length;
         s < (source.first + source.tokens) / table.sequence_length; ++s)
      domain_of[s] = static_cast<std::uint32_t>(d);
  }
  // [L][way] counts of a sequence's choices, [sequences, E]
  std::vector<std::array<std::vector<std::uint32_t>, ways>> counts(table.layers());
  std::vector<std::size_t> cells(domains * experts);
  const auto cell_sum = [&](const std::vector<std::uint32_t>& of_sequences, auto&& label) {
    std::fill(cells.begin(), cells.end(), 0);
    for (std::size_t s = 0; s < sequences; ++s)
      for (std::size_t e = 0; e < experts; ++e) cells[label(s) * experts + e] += of_sequences[s * experts + e];
    return logs.sum(cells);
  };
  std::vector<LayerTests> tests(table.layers());
  for (std::size_t l = 0; l < table.layers(); ++l)
    for (std::size_t way = 0; way < ways; ++way) {
      const std::size_t of_each = counted(table, way);
      auto& of_sequences = counts[l][way];
      of_sequences.resize(sequences * experts);
      for (std::size_t t = 0; t < table.tokens(); ++t)
        for (const ExpertId e : table.chosen(l, t).first(of_each))
          ++of_sequences[t / table.sequence_length * experts + e];
      std::vector<std::size_t> rows = tokens;
      for (std::size_t& row : rows) row *= of_each;
      tests[l][way] = {logs.sum(rows), logs.sum(expert_counts(table, l, of_each)),
                       cell_sum(of_sequences, [&](std::size_t s) { return domain_of[s]; }),
                       static_cast<double>(table.tokens() * of_each)};
    }
  Permutations permutations(options.seed, "analysis.domain", sequences);
  for (std::int64_t round = 0; round < options.permutations; ++round) {
    const auto order = permutations.draw(static_cast<std::uint64_t>(round));
    for (std::size_t l = 0; l < table.layers(); ++l)
      for (std::size_t way = 0; way < ways; ++way)
        tests[l][way].add_permuted(cell_sum(counts[l][way], [&](std::size_t s) { return domain_of[order[s]]; }));
  }
  return layer_results(tests);
}

std::vector<LayerInformation> token_information(const Assignments& table, const PermutationOptions& options) {
  const CountLogs logs;
  const TokenGroups groups(table);
  // Sums over the cells of the table, token by expert, where the token at a place, the i-th of all by id, has the choices of
  // chooser(i, place). Both ways in one pass: a token's further choices are counted on top of its first.
  std::vector<std::size_t> row(table.experts);
  const auto cell_sums = [&](std::size_t layer, auto&& chooser) {
    std::array<double, ways> sums{};
    std::size_t first = 0;
    for (const auto& places : groups) {
      std::fill(row.begin(), row.end(), 0);
      for (std::size_t i = 0; i < places.size(); ++i) ++row[table.first_choice(layer, chooser(first + i, places[i]))];
      sums[0] += logs.sum(row);
      for (std::size_t i = 0; i < places.size(); ++i)
        for (const ExpertId e : table.chosen(layer, chooser(first + i, places[i])).subspan(1)) ++row[e];
      sums[1] += logs.sum(row);
      first += places.size();
    }
    return sums;
  };
  std::vector<LayerTests> tests(table.layers());
  for (std::size_t l = 0; l < table.layers(); ++l) {
    const auto cells = cell_sums(l, [](std::size_t, std::uint32_t place) { return place; });
    for (std::size_t way = 0; way < ways; ++way) {
      const std::size_t of_each = counted(table, way);
      double rows = 0;
      for (const auto& places : groups) rows += logs(places.size() * of_each);
      tests[l][way] = {rows, logs.sum(expert_counts(table, l, of_each)), cells[way],
                       static_cast<double>(table.tokens() * of_each)};
    }
  }
  Permutations permutations(options.seed, "analysis.token", table.tokens());
  for (std::int64_t round = 0; round < options.permutations; ++round) {
    const auto order = permutations.draw(static_cast<std::uint64_t>(round));
    for (std::size_t l = 0; l < table.layers(); ++l) {
      const auto cells = cell_sums(l, [&](std::size_t i, std::uint32_t) { return order[i]; });
      for (std::size_t way = 0; way < ways; ++way) tests[l][way].add_permuted(cells[way]);
    }
  }
  return layer_results(tests);
}

}  // namespace smoe
