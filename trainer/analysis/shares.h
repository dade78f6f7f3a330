// Which share of a domain's assignments each expert gets (arXiv 2401.04088, figures 7 and 9): of first choices, of second
// choices and so on, and of all K choices together ("either choice"). Each list sums to 1; a balanced layer has 1/E everywhere.
#pragma once

#include <cstddef>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

struct Shares {
  std::vector<std::vector<double>> choices;  // [K,E] of the tokens, the share whose j-th choice an expert is
  std::vector<double> assignments;           // [E] of the K choices of all tokens
};

Shares shares_of(const Assignments& table, const AnalysedSource& source, std::size_t layer);

}  // namespace smoe
