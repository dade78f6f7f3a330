// How the ranks are divided. Data parallelism is what remains: dp = ranks / tp.
#pragma once

#include <cstdint>

namespace smoe {

struct ParallelConfig {
  std::int64_t tp = 1;  // tensor parallel ranks
  std::int64_t ep = 1;  // expert parallel ranks

  bool operator==(const ParallelConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.not_available("tp", self.tp);
    visit.not_available("ep", self.ep);
  }
};

}  // namespace smoe
