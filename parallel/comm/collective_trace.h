// A record of the collectives that a rank has called, and when: of the host by its clock, of a GPU by stamps of its streams.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/stamp.h"
#include "parallel/comm/collective_observer.h"
#include "parallel/comm/traffic.h"

namespace smoe {

struct HostCollective {
  CollectiveCall call;
  std::int64_t begin = 0, end = 0;  // host_nanoseconds()
  std::int64_t bytes = 0;           // that this rank has sent
};

// What a reduce-scatter that goes on behind its caller's back is called where it begins and where it is waited for
// (CollectiveCall::operation): the two enclose what is on its way.
inline constexpr const char* start_of_reduce_scatter = "start reduce_scatter";
inline constexpr const char* finish_of_reduce_scatter = "finish reduce_scatter";

class CollectiveTrace final : public CollectiveObserver {
 public:
  // traffic: where the groups that are watched count what they send.
  explicit CollectiveTrace(const Traffic& traffic) : traffic_(traffic) {}

  void clear() { host_.clear(), device_.clear(); }
  // In the order of the calls.
  const std::vector<HostCollective>& host() const { return host_; }
  const std::vector<DeviceCollective>& device() const { return device_; }

  void enter(const CollectiveCall& call) override {
    sent_before_ = traffic_.total();
    host_.push_back({call, host_nanoseconds(), 0, 0});
  }
  void leave() override {       // what was sent has been counted by now
    if (host_.empty()) return;  // it was entered before anybody looked
    host_.back().end = host_nanoseconds();
    host_.back().bytes = traffic_.total() - sent_before_;
  }
  void queued(const DeviceCollective& call) override { device_.push_back(call); }

 private:
  const Traffic& traffic_;
  std::int64_t sent_before_ = 0;
  std::vector<HostCollective> host_;
  std::vector<DeviceCollective> device_;
};

}  // namespace smoe
