#include "trainer/analysis/shares.h"

namespace smoe {

Shares shares_of(const Assignments& table, const AnalysedSource& source, std::size_t layer) {
  const std::size_t per_token = table.experts_per_token;
  std::vector<std::vector<std::size_t>> counts(per_token, std::vector<std::size_t>(table.experts));
  for (std::size_t t = source.first; t < source.first + source.tokens; ++t)
    for (std::size_t j = 0; j < per_token; ++j) ++counts[j][table.chosen(layer, t)[j]];
  Shares shares;
  std::vector<std::size_t> all(table.experts);
  const auto share = [](std::size_t count, std::size_t of) {
    return static_cast<double>(count) / static_cast<double>(of);
  };
  for (const auto& of_choice : counts) {
    auto& row = shares.choices.emplace_back();
    for (std::size_t e = 0; e < table.experts; ++e) {
      row.push_back(share(of_choice[e], source.tokens));
      all[e] += of_choice[e];
    }
  }
  for (const std::size_t count : all) shares.assignments.push_back(share(count, per_token * source.tokens));
  return shares;
}

}  // namespace smoe
