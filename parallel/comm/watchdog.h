// A thread that ends a job which makes no progress, after saying why. One a rank; it makes no MPI call but the last.
//
// It acts where this rank, or its GPU, has been inside one collective for longer than the limit, where NCCL reports an error, or
// where a rank of this node has shown no sign of life for so long (stopped, frozen) while others wait. One rank of each
// node writes the report.
//
// Its clock counts only the time it was awake to see: a job that is stopped and continued as a whole goes on unharmed,
// and ranks that share too few cores are slow, not dead.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/comm/device_calls.h"
#include "parallel/comm/node_ledger.h"

namespace smoe {

class Watchdog {
 public:
  static constexpr double default_limit = 60;  // seconds
  static constexpr double long_limit = 3600;   // for collectives while a rank of the node is in a LongWork

  // What the ranks' GPUs are doing: null where nobody asks.
  struct Devices {
    NodeLedger* ledger = nullptr;
    DeviceCalls* calls = nullptr;
  };
  // end_job ends every rank of the job; where there are other nodes, they first get the time for their own reports.
  Watchdog(NodeLedger& ledger, bool other_nodes, std::function<void()> end_job, const Devices& devices);
  ~Watchdog();  // stops the thread at once
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void set_limit(double seconds) { limit_ = seconds; }  // 0: watches nothing

 private:
  // What is remembered of a rank of the node. Times are of the watchdog's own clock.
  struct Seen {
    std::int64_t heartbeat = 0;
    double heartbeat_at = 0;
    LedgerEntry entry, device;
    double entry_at = 0, device_at = 0;
  };

  void run();
  bool sleep(double seconds);  // false when asked to stop
  void look();
  // The device is asked by a thread of its own: a driver that does not answer must not look like a rank that does not.
  void ask_device();
  std::string trouble_of_device();  // "" where there is none
  bool is_stuck(double limit) const;
  std::string report(double limit) const;
  void end_job();
  void end_after_report();

  NodeLedger& ledger_;
  Devices devices_;
  bool other_nodes_;
  std::function<void()> end_job_;
  std::atomic<double> limit_ = default_limit;
  double clock_ = 0;
  bool long_work_ = false;
  std::vector<Seen> seen_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::string device_trouble_;  // under mutex_
  std::thread device_thread_, thread_;
};

}  // namespace smoe
