#include "trainer/analysis/top_tokens.h"

#include <algorithm>
#include <tuple>

#include "trainer/analysis/token_groups.h"

namespace smoe {
namespace {

template <class Before>
std::vector<TokenOfExpert> first_of(std::vector<TokenOfExpert> tokens, std::size_t listed, Before&& before) {
  const auto end = tokens.begin() + static_cast<std::ptrdiff_t>(std::min(listed, tokens.size()));
  std::partial_sort(tokens.begin(), end, tokens.end(), before);
  tokens.erase(end, tokens.end());
  return tokens;
}

}  // namespace

std::vector<TokensOfExpert> top_tokens(const Assignments& table, std::size_t layer, const TopTokenOptions& options) {
  std::vector<std::vector<TokenOfExpert>> seen(table.experts);
  std::vector<std::size_t> counts(table.experts);
  for (const auto& places : TokenGroups(table)) {
    std::fill(counts.begin(), counts.end(), 0);
    for (const std::uint32_t t : places) ++counts[table.first_choice(layer, t)];
    for (std::size_t e = 0; e < table.experts; ++e)
      if (counts[e] > 0)
        seen[e].push_back({table.ids[places.front()], counts[e], places.size(),
                           static_cast<double>(counts[e]) / static_cast<double>(places.size())});
  }
  std::vector<TokensOfExpert> found;
  for (std::vector<TokenOfExpert>& tokens : seen) {
    std::size_t all = 0;
    for (const TokenOfExpert& token : tokens) all += token.count;
    const double average = static_cast<double>(all) / static_cast<double>(table.tokens());
    TokensOfExpert of_expert;
    of_expert.frequent = first_of(tokens, options.listed, [](const TokenOfExpert& a, const TokenOfExpert& b) {
      return std::tuple(b.count, b.share, a.id) < std::tuple(a.count, a.share, b.id);
    });
    std::erase_if(tokens, [&](const TokenOfExpert& token) {
      return token.occurrences < options.least_occurrences || token.share <= average;
    });
    of_expert.specific =
        first_of(std::move(tokens), options.listed, [](const TokenOfExpert& a, const TokenOfExpert& b) {
          return std::tuple(b.share, b.count, a.id) < std::tuple(a.share, a.count, b.id);
        });
    found.push_back(std::move(of_expert));
  }
  return found;
}

}  // namespace smoe
