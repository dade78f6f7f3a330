// How the ranks are divided (parallel/layout.h). Data parallelism is what remains: dp = ranks / tp, edp = ranks / ep.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "parallel/comm/transport.h"

namespace smoe {

inline constexpr auto choices(Transport) {
  return std::array<std::pair<Transport, std::string_view>, 3>{
      {{Transport::automatic, "auto"}, {Transport::nccl, "nccl"}, {Transport::mpi, "mpi"}}};
}

struct ParallelConfig {
  std::int64_t tp = 1;                         // tensor parallel ranks
  std::int64_t ep = 1;                         // expert parallel ranks
  Transport transport = Transport::automatic;  // of the tensors of GPUs
  double timeout = 60;  // seconds that a rank may wait for others before the job ends; 0: for ever

  bool operator==(const ParallelConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("tp", self.tp, "[1, 65536]");
    visit.integer("ep", self.ep, "[1, 65536]");
    visit.choice("transport", self.transport);
    visit.number("timeout", self.timeout, "[0, 86400]");
  }
};

}  // namespace smoe
