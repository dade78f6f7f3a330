// What every rank of this node is doing: one line a rank, in memory that the node's ranks share. The watchdog
// (watchdog.h) reads it when a collective does not end; a rank that has stopped cannot be asked, but its line is there.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace smoe {

// A collective as its caller described it.
struct CollectiveCall {
  std::string_view operation;  // "all_gather"
  std::string_view axis;       // "tp"
  std::string_view label;
  std::string_view type;       // "f32"
  std::int64_t elements = 0;
};

class Ledger {
 public:
  virtual ~Ledger() = default;
  // This rank enters a collective, waits in it for messages from these ranks of the world, and leaves it.
  virtual void enter(const CollectiveCall& call) = 0;
  virtual void waits_for(std::span<const int> world_ranks) = 0;
  virtual void leave() = 0;
};

}  // namespace smoe
