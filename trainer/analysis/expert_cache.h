// How often an expert that a token needs is at hand already, where only some of a layer's experts fit into fast memory and the
// others wait in slow: what makes offloaded inference of a mixture of experts bearable (Eliseev and Mazur, arXiv 2312.17238).
//
// A cache of c experts a layer, empty where a sequence begins, sees one token after another, as generation of one text would. A
// token's K experts are needed together: each that is there when the token comes is a hit; then all K are there, and those used
// longest ago are gone (LRU). So c is at least K. Beside it stand what needs no order of tokens: c experts kept for good, those
// with most assignments of this source and layer; and a router that draws evenly, whose experts are there with probability c/E
// whatever is kept.
#pragma once

#include <cstddef>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

// [E - K + 1]: entry i is of a cache of c = K + i experts. Shares of the assignments.
struct CacheRates {
  std::vector<double> lru, fixed;
};

CacheRates cache_rates(const Assignments& table, const AnalysedSource& source, std::size_t layer);

}  // namespace smoe
