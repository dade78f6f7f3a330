// What a watchdog says about a job that makes no progress: which ranks are at fault, who waits for whom, and the last
// collective of every rank of the node.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/node_ledger.h"

namespace smoe {

struct RankState {
  int rank = 0;
  int pid = 0;
  LedgerEntry entry;
  double seconds = 0;  // since the entry's since_ns
  LedgerEntry device;  // of its GPU
  double device_seconds = 0;
  bool answers = true;  // its watchdog shows signs of life
  double silent = 0;    // seconds without one
  std::string process;  // what the system says of a process that does not answer ("is stopped"), or ""
};

// Several lines, each ended. Awaited ranks that are not in `ranks` are on other nodes.
std::string stall_report(const std::vector<RankState>& ranks, double limit_seconds, const std::string& node);

}  // namespace smoe
