// Which tokens an expert is the first choice of: those it has most of, and those that go nowhere else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

struct TokenOfExpert {
  std::int32_t id = 0;
  std::size_t count = 0;        // of its places, those whose first choice the expert is
  std::size_t occurrences = 0;  // of the token, in all sources together
  double share = 0;             // count / occurrences

  bool operator==(const TokenOfExpert&) const = default;
};

struct TokensOfExpert {
  // By share, then count, then id: of tokens that occur often enough, and go there more than the average token does.
  std::vector<TokenOfExpert> specific;
  std::vector<TokenOfExpert> frequent;  // by count, then share, then id
};

struct TopTokenOptions {
  std::size_t listed = 16;            // of each list, at most
  std::size_t least_occurrences = 8;  // of a token that may be called specific: rarer ones are so by chance
};

// [E] of one layer.
std::vector<TokensOfExpert> top_tokens(const Assignments& table, std::size_t layer, const TopTokenOptions& options);

}  // namespace smoe
