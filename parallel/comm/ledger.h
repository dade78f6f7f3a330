// What every rank of this node is doing: one line a rank, in memory that the node's ranks share (node_ledger.h). The
// watchdog (watchdog.h) reads it; a rank that has stopped cannot be asked, but its line is there.
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
  std::string_view type;  // "f32"
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

// Of calls that somebody else has counted: a GPU's, which are looked at from time to time.
class NumberedLedger {
 public:
  virtual ~NumberedLedger() = default;
  virtual void enter(const CollectiveCall& call, std::uint64_t number) = 0;
  virtual void leave() = 0;
};

// Enters, and leaves also where an exception does.
class InsideCollective {
 public:
  InsideCollective(Ledger& ledger, const CollectiveCall& call) : ledger_(ledger) { ledger_.enter(call); }
  ~InsideCollective() { ledger_.leave(); }
  InsideCollective(const InsideCollective&) = delete;
  InsideCollective& operator=(const InsideCollective&) = delete;

 private:
  Ledger& ledger_;
};

}  // namespace smoe
