#include "trainer/analysis/excerpts.h"

#include <algorithm>

namespace smoe {

Excerpt excerpt_of(const Assignments& table, const AnalysedSource& source, std::size_t tokens) {
  const std::size_t length = std::min(tokens, table.sequence_length);
  std::size_t first = source.first;
  for (std::size_t i = 0; i < source.tokens; ++i) {
    const std::size_t position = i % table.sequence_length;
    if (position == 0 || table.follows[source.first + i] || position + length > table.sequence_length) continue;
    first = source.first + i;
    break;
  }
  Excerpt excerpt;
  for (std::size_t t = first; t < first + length; ++t) excerpt.ids.push_back(table.ids[t]);
  for (std::size_t l = 0; l < table.layers(); ++l) {
    auto& row = excerpt.first_choice.emplace_back();
    for (std::size_t t = first; t < first + length; ++t) row.push_back(table.first_choice(l, t));
  }
  return excerpt;
}

}  // namespace smoe
