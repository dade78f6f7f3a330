// The places of each token id in a table of assignments: what is counted by token walks over these.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

// Iterating gives the places of one id after another, ids ascending, places ascending.
class TokenGroups {
 public:
  explicit TokenGroups(const Assignments& table) : places_(table.tokens()) {
    std::iota(places_.begin(), places_.end(), 0u);
    std::stable_sort(places_.begin(), places_.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return table.ids[a] < table.ids[b]; });
    for (std::size_t i = 0, first = 0; i < places_.size(); ++i)
      if (i + 1 == places_.size() || table.ids[places_[i]] != table.ids[places_[i + 1]]) {
        groups_.push_back(std::span<const std::uint32_t>(places_).subspan(first, i + 1 - first));
        first = i + 1;
      }
  }
  TokenGroups(const TokenGroups&) = delete;  // the groups point into it
  TokenGroups& operator=(const TokenGroups&) = delete;

  auto begin() const { return groups_.begin(); }
  auto end() const { return groups_.end(); }
  std::size_t size() const { return groups_.size(); }

 private:
  std::vector<std::uint32_t> places_;
  std::vector<std::span<const std::uint32_t>> groups_;
};

}  // namespace smoe
