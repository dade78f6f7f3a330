// The ledger in memory that the ranks of a node share. Writing an entry takes well under a microsecond: no lock, no heap,
// no system call. Reading one never shows half of it, also where the writer was stopped while it wrote.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "parallel/comm/ledger.h"

namespace smoe {

enum class Place : std::uint32_t {
  outside,  // of any collective
  inside,
  ended,  // the rank has reached the end of the program and waits for the others there
};

// What one rank is doing. Texts end with 0 and are cut where they are longer.
struct LedgerEntry {
  std::uint64_t number = 0;   // of collectives entered so far; the fields below describe the last one
  std::int64_t since_ns = 0;  // when it was entered, or left: of the steady clock, which the node has in common
  std::int64_t elements = 0;
  Place place = Place::outside;
  std::uint32_t awaited_count = 0;
  std::array<std::int32_t, 16> awaited{};  // world ranks, the first of them
  std::array<char, 24> operation{};
  std::array<char, 8> axis{};
  std::array<char, 64> label{};
  std::array<char, 8> type{};
  std::array<char, 48> work{};  // the LongWork that the rank is in, or ""
};

class NodeLedger final : public Ledger, public NumberedLedger {
 public:
  static constexpr std::int64_t no_more_heartbeats = -1;

  static std::size_t bytes_for(int ranks);  // of the memory below

  // memory: bytes_for(ranks), shared by the ranks of a node and zero at first. line: this rank's among them.
  NodeLedger(std::shared_ptr<void> memory, int ranks, int line, int world_rank);

  // Of this rank; all from one thread.
  void enter(const CollectiveCall& call) override { enter(call, own_.number + 1); }
  void enter(const CollectiveCall& call, std::uint64_t number) override;
  void waits_for(std::span<const int> world_ranks) override;
  void leave() override;
  void end_of_program();
  std::string set_work(std::string_view name);  // returns the name that was set before

  // Of this rank, from the thread that shows it is alive.
  void set_heartbeat(std::int64_t ns);

  // Of any rank of the node, from any thread.
  int ranks() const { return ranks_; }
  int own_line() const { return line_; }
  LedgerEntry read(int line) const;
  std::int64_t heartbeat(int line) const;
  int world_rank(int line) const;
  int pid(int line) const;

  // One rank of the node speaks for all, once: the first that claims the report.
  bool claim_report();
  bool report_is_claimed() const;
  void set_reported();
  bool is_reported() const;

 private:
  struct Header;
  struct Line;
  Header& header() const;
  Line& line(int index) const;
  void publish();

  std::shared_ptr<void> memory_;
  int ranks_, line_;
  LedgerEntry own_;
  std::uint64_t version_ = 0;
};

}  // namespace smoe
