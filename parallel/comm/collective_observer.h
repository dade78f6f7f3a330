// Who wants to be told of collectives as they are called, and the ledger that tells.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "kernels/communication_stream.h"
#include "kernels/stamp.h"
#include "parallel/comm/ledger.h"

namespace smoe {

// One that a GPU has before it.
struct DeviceCollective {
  CollectiveCall call;
  Lane lane = Lane::foreground;
  Stamp begin, end;        // of its stream, which has waited for the ops before
  std::int64_t bytes = 0;  // that this rank sends
};

class CollectiveObserver {
 public:
  virtual ~CollectiveObserver() = default;
  // The host enters a collective, and leaves the one that it is in.
  virtual void enter(const CollectiveCall& call) = 0;
  virtual void leave() = 0;
  virtual void queued(const DeviceCollective& call) = 0;
};

// Another ledger, and an observer beside it where there is one.
class ObservedLedger final : public Ledger {
 public:
  explicit ObservedLedger(std::unique_ptr<Ledger> ledger) : ledger_(std::move(ledger)) {}

  // Null: nobody. It outlives its place here.
  void observe(CollectiveObserver* observer) { observer_ = observer; }

  void enter(const CollectiveCall& call) override {
    if (observer_) observer_->enter(call);
    ledger_->enter(call);
  }
  void waits_for(std::span<const int> world_ranks) override { ledger_->waits_for(world_ranks); }
  void leave() override {
    ledger_->leave();
    if (observer_) observer_->leave();
  }

 private:
  std::unique_ptr<Ledger> ledger_;
  CollectiveObserver* observer_ = nullptr;
};

}  // namespace smoe
