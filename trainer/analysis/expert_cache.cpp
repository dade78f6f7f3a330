#include "trainer/analysis/expert_cache.h"

#include <algorithm>
#include <functional>

namespace smoe {
namespace {

// What a cache of c experts holds under LRU is the c used last, whatever c is. So one list of all experts, the last used first,
// serves every size at once: an expert at place d of it is a hit for c > d (Mattson et al., IBM Systems Journal, 1970).
class UseList {
 public:
  explicit UseList(std::size_t experts) : hits_at_(experts) {}

  void forget() { used_.clear(); }
  void use(std::span<const ExpertId> chosen) {
    for (const ExpertId e : chosen)
      if (const auto place = std::find(used_.begin(), used_.end(), e); place != used_.end())
        ++hits_at_[static_cast<std::size_t>(place - used_.begin())];
    for (std::size_t j = chosen.size(); j-- > 0;) {  // the first choice in front
      const auto place = std::find(used_.begin(), used_.end(), chosen[j]);
      if (place != used_.end()) used_.erase(place);
      used_.insert(used_.begin(), chosen[j]);
    }
  }
  const std::vector<std::size_t>& hits_at() const { return hits_at_; }

 private:
  std::vector<ExpertId> used_;
  std::vector<std::size_t> hits_at_;
};

// Of the sums of the first K, K + 1, ..., E counts, the shares of `all`.
std::vector<double> running_shares(const std::vector<std::size_t>& counts, std::size_t per_token, std::size_t all) {
  std::vector<double> shares;
  std::size_t sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    sum += counts[i];
    if (i + 1 >= per_token) shares.push_back(static_cast<double>(sum) / static_cast<double>(all));
  }
  return shares;
}

}  // namespace

CacheRates cache_rates(const Assignments& table, const AnalysedSource& source, std::size_t layer) {
  UseList list(table.experts);
  std::vector<std::size_t> loads(table.experts);
  for (std::size_t i = 0; i < source.tokens; ++i) {
    if (i % table.sequence_length == 0) list.forget();
    const auto chosen = table.chosen(layer, source.first + i);
    list.use(chosen);
    for (const ExpertId e : chosen) ++loads[e];
  }
  std::sort(loads.begin(), loads.end(), std::greater<>());
  const std::size_t all = source.tokens * table.experts_per_token;
  return {running_shares(list.hits_at(), table.experts_per_token, all),
          running_shares(loads, table.experts_per_token, all)};
}

}  // namespace smoe
