// A piece of each source, token by token, with the expert that each layer chose first (arXiv 2401.04088, figure 8).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

struct Excerpt {
  std::vector<std::int32_t> ids;                    // [n]
  std::vector<std::vector<ExpertId>> first_choice;  // [L,n]
};

// The first document of the source that opens inside a sequence with `tokens` left in it; where there is none, the beginning of
// its first sequence. `tokens` long, or as long as a sequence.
Excerpt excerpt_of(const Assignments& table, const AnalysedSource& source, std::size_t tokens);

}  // namespace smoe
