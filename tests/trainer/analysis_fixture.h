// Tables of assignments that are written down by hand, for the statistics of trainer/analysis.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe::test {

// One layer, K choices a token. Every sequence is one document unless `follows` is changed.
inline Assignments table_of(std::size_t experts, std::size_t per_token, std::size_t sequence_length,
                            const std::vector<std::int32_t>& ids, const std::vector<ExpertId>& choices) {
  Assignments table;
  table.experts = experts;
  table.experts_per_token = per_token;
  table.sequence_length = sequence_length;
  table.ids = ids;
  for (std::size_t t = 0; t < ids.size(); ++t) table.follows.push_back(t % sequence_length > 0);
  table.choices = {choices};
  table.sources = {{"all", "shards/all", 0, ids.size()}};
  return table;
}

// Cuts the tokens into sources of so many sequences each.
inline void divide(Assignments& table, std::initializer_list<std::size_t> sequences) {
  table.sources.clear();
  std::size_t first = 0;
  for (const std::size_t count : sequences) {
    const std::string name = "source " + std::to_string(table.sources.size());
    table.sources.push_back({name, "shards/" + name, first, count * table.sequence_length});
    first += count * table.sequence_length;
  }
}

}  // namespace smoe::test
