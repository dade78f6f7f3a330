// MPI for the rest of the process's life. Made only where there are other ranks (launcher.h), once in a process.
//
// With more than one rank, a watchdog ends the job where it makes no progress (watchdog.h): a rank that stops, or calls
// other collectives than its group. Not watched: the time before the constructor returns, and after the destructor has
// seen every rank arrive there.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "parallel/comm/ledger.h"

namespace smoe {

class CollectiveObserver;
class DeviceCalls;
class NodeLedger;
class ObservedLedger;
class Watchdog;

class MpiSession {
 public:
  // Initialises MPI with MPI_THREAD_MULTIPLE; throws std::runtime_error if the library grants less, or if the ranks of a
  // node cannot share memory.
  MpiSession(int* argc, char*** argv);
  ~MpiSession();  // waits for all ranks, and finalises
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // Of this slice, which is the whole job unless slice() was called.
  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_rank() const { return local_rank_; }  // among the slice's ranks on this node
  int local_size() const { return local_size_; }
  int first_rank() const { return first_rank_; }  // of the slice, among all ranks

  // Parts the job into so many slices of neighbouring ranks, each of which goes on as if it were alone; meshes that were
  // made before are not used inside. All ranks call it, of a whole job. Throws std::invalid_argument unless size() is a multiple.
  void slice(int slices);
  // Waits until every slice has come here, for as long as that takes, and is the whole job again.
  void rejoin();

  Ledger& ledger();
  DeviceCalls& device_calls() { return *device_calls_; }
  // Tells it of each collective of this rank from here on; null: nobody, and nothing is paid. It outlives that.
  void observe(CollectiveObserver* observer);
  // Whether each collective first compares what the ranks of its group are about to call: in debug builds, or where
  // the environment has SMOE_CHECK_COLLECTIVES=1.
  bool checks_calls() const { return checks_calls_; }

  // How long a rank may stay in one collective, or show no sign of life while others wait, before the job ends: 60 s
  // unless set; 0 waits for ever. The same on all ranks. Throws std::invalid_argument below 0.
  void set_timeout(double seconds);

  // Ends every rank of the job with this exit status, for failures that only one rank has seen.
  [[noreturn]] void abort(int status);

 private:
  friend class LongWork;
  void start_watchdog();
  void read_place_on_node();
  void wait_for_every_slice();
  void wait_for_all_ranks();

  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, first_rank_ = 0;
  bool checks_calls_ = false;
  std::unique_ptr<ObservedLedger> ledger_;
  NodeLedger* node_ledger_ = nullptr;          // what stands behind it, where there is more than one rank
  std::unique_ptr<NodeLedger> device_ledger_;  // of the ranks' GPUs, which the watchdog looks after
  std::unique_ptr<DeviceCalls> device_calls_;
  std::unique_ptr<Watchdog> watchdog_;
};

// Work known to take longer than the timeout, such as saving: while a rank of the node is in it, ranks may wait for an
// hour, and only those that show no sign of life end the job earlier. All ranks hold it at once, over the collectives
// in which they wait for that work. May be nested; reports name the innermost.
class LongWork {
 public:
  LongWork(MpiSession* session, std::string_view name);  // no session: does nothing
  ~LongWork();
  LongWork(const LongWork&) = delete;
  LongWork& operator=(const LongWork&) = delete;

 private:
  NodeLedger* ledger_;
  std::string outer_;
};

}  // namespace smoe
