#include "parallel/comm/node_ledger.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "kernels/stamp.h"

namespace smoe {
namespace {

// Entries are copied word by word, because a reader may look while the writer writes.
constexpr std::size_t words = sizeof(LedgerEntry) / sizeof(std::uint64_t);
using Words = std::array<std::uint64_t, words>;
static_assert(sizeof(Words) == sizeof(LedgerEntry) && std::is_trivially_copyable_v<LedgerEntry>);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "atomics shared by processes");

template <std::size_t n>
void set_text(std::array<char, n>& field, std::string_view text) {
  field.fill(0);
  std::copy_n(text.data(), std::min(text.size(), n - 1), field.data());
}

}  // namespace

struct NodeLedger::Header {
  std::atomic<int> claimed;
  std::atomic<int> reported;
};

// The entry of version v is in slot v % 2, so the last complete one can be read however the writing of the next ends.
struct alignas(64) NodeLedger::Line {
  std::atomic<std::uint64_t> version;
  std::array<std::array<std::atomic<std::uint64_t>, words>, 2> slots;
  std::atomic<std::int64_t> heartbeat;
  std::atomic<int> world_rank;
  std::atomic<int> pid;
};

std::size_t NodeLedger::bytes_for(int ranks) {
  static_assert(sizeof(Header) <= sizeof(Line));
  return sizeof(Line) * (static_cast<std::size_t>(ranks) + 1);
}

NodeLedger::NodeLedger(std::shared_ptr<void> memory, int ranks, int own_line, int world_rank)
    : memory_(std::move(memory)), ranks_(ranks), line_(own_line) {
  Line& own = line(line_);
  own.world_rank.store(world_rank);
  own.pid.store(static_cast<int>(::getpid()));
  own.heartbeat.store(host_nanoseconds());
  own_.since_ns = host_nanoseconds();
  publish();
}

NodeLedger::Header& NodeLedger::header() const { return *static_cast<Header*>(memory_.get()); }
NodeLedger::Line& NodeLedger::line(int index) const { return static_cast<Line*>(memory_.get())[index + 1]; }

void NodeLedger::publish() {
  Line& own = line(line_);
  Words values;
  std::memcpy(values.data(), &own_, sizeof own_);
  ++version_;
  // Whoever reads a word written below also sees the version before this one, and so that its slot is being written.
  std::atomic_thread_fence(std::memory_order_release);
  auto& slot = own.slots[version_ % 2];
  for (std::size_t i = 0; i < words; ++i) slot[i].store(values[i], std::memory_order_relaxed);
  own.version.store(version_, std::memory_order_release);
}

LedgerEntry NodeLedger::read(int index) const {
  const Line& other = line(index);
  Words values;
  for (;;) {
    const std::uint64_t version = other.version.load(std::memory_order_acquire);
    const auto& slot = other.slots[version % 2];
    for (std::size_t i = 0; i < words; ++i) values[i] = slot[i].load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (other.version.load(std::memory_order_relaxed) == version) break;
  }
  LedgerEntry entry;
  std::memcpy(static_cast<void*>(&entry), values.data(), sizeof entry);
  return entry;
}

void NodeLedger::enter(const CollectiveCall& call, std::uint64_t number) {
  own_.number = number;
  own_.since_ns = host_nanoseconds();
  own_.elements = call.elements;
  own_.place = Place::inside;
  own_.awaited_count = 0;
  set_text(own_.operation, call.operation);
  set_text(own_.axis, call.axis);
  set_text(own_.label, call.label);
  set_text(own_.type, call.type);
  publish();
}

void NodeLedger::waits_for(std::span<const int> world_ranks) {
  own_.awaited_count = static_cast<std::uint32_t>(world_ranks.size());
  std::copy_n(world_ranks.begin(), std::min(world_ranks.size(), own_.awaited.size()), own_.awaited.begin());
  publish();
}

void NodeLedger::leave() {
  own_.since_ns = host_nanoseconds();
  own_.place = Place::outside;
  own_.awaited_count = 0;
  publish();
}

void NodeLedger::end_of_program() {
  own_.since_ns = host_nanoseconds();
  own_.place = Place::ended;
  own_.awaited_count = 0;
  publish();
}

std::string NodeLedger::set_work(std::string_view name) {
  std::string before = own_.work.data();
  set_text(own_.work, name);
  publish();
  return before;
}

void NodeLedger::set_heartbeat(std::int64_t ns) { line(line_).heartbeat.store(ns, std::memory_order_relaxed); }
std::int64_t NodeLedger::heartbeat(int index) const { return line(index).heartbeat.load(std::memory_order_relaxed); }
int NodeLedger::world_rank(int index) const { return line(index).world_rank.load(); }
int NodeLedger::pid(int index) const { return line(index).pid.load(); }

bool NodeLedger::claim_report() { return header().claimed.exchange(1) == 0; }
bool NodeLedger::report_is_claimed() const { return header().claimed.load() != 0; }
void NodeLedger::set_reported() { header().reported.store(1); }
bool NodeLedger::is_reported() const { return header().reported.load() != 0; }

}  // namespace smoe
