// The collectives that this rank's GPU has before it. The host has queued them and gone on, so only the device knows which are
// done: the watchdog asks it, and writes what it is in into a ledger of the node's GPUs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/communication_stream.h"
#include "kernels/nccl.h"
#include "parallel/comm/collective_observer.h"
#include "parallel/comm/ledger.h"

namespace smoe {

class DeviceCalls {
 public:
  explicit DeviceCalls(Ledger& host) : host_(host) {}

  // ---- of the thread that trains ----
  Ledger& host() { return host_; }
  void watch(const NcclGroup& group);
  // Before the group ends; all that was queued on the stream is done.
  void forget(const NcclGroup& group, CommunicationStream& stream);
  // A call was queued on the stream before this point. Takes nothing from the heap once each stream was seen.
  void add(CommunicationStream& stream, std::uint64_t point, const CollectiveCall& call);

  // Who is told of calls as they are queued: by whoever queues them, who asks first. Null: nobody.
  void observe(CollectiveObserver* observer) { observer_ = observer; }
  CollectiveObserver* observer() const { return observer_; }

  // ---- of the watchdog's ----
  // Enters the oldest call that is not done into the ledger, by its number of all that were added, and leaves where all are.
  // Returns what went wrong, or "".
  std::string look(NumberedLedger& device);

 private:
  struct Queued {
    std::uint64_t number = 0, point = 0;
    CollectiveCall call;
  };
  // Of one stream, a ring. When it is full the oldest is forgotten: the device has long come by it.
  struct Queue {
    CommunicationStream* stream = nullptr;
    std::vector<Queued> ring;
    std::size_t first = 0, count = 0;
  };

  Ledger& host_;
  std::mutex asking_;  // held while the device is asked, which may take as long as it likes: what is asked about stays
  std::mutex mutex_;   // of the fields below, never held for long
  CollectiveObserver* observer_ = nullptr;
  std::vector<Queue> queues_;
  std::vector<const NcclGroup*> groups_;
  std::uint64_t added_ = 0, shown_ = 0;  // shown: the number that the ledger has; 0: it was left
};

}  // namespace smoe
