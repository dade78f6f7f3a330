#include "tests/cuda_on_host/block.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/fiber.h"

// Around all __shared__ variables (shared_memory.ld); absent from a program whose kernels have none.
extern "C" {
extern char cuda_shared_begin[] __attribute__((weak));
extern char cuda_shared_end[] __attribute__((weak));
}

namespace cuda_on_host {
namespace {

constexpr unsigned lanes = 32;

std::uint64_t number_in_environment(const char* name) {
  const char* const text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : 0;
}

Plant plant_in_environment() {
  if (!std::getenv("CUDA_ON_HOST_IDLE_THREAD")) return {};
  return {.error = Plant::Error::thread,
          .thread = static_cast<unsigned>(number_in_environment("CUDA_ON_HOST_IDLE_THREAD")),
          .in_every_kernel = true};
}

enum class Meeting : std::uint8_t { none, block, warp_barrier, ballot, match, largest, shuffle };

struct Thread {
  Index index;
  Meeting waits_at = Meeting::none;
  unsigned mask = 0;       // of the lanes that it meets
  std::uint64_t bits = 0;  // what it brings, and then what it takes away
  int from = 0;            // the lane of a shuffle that it reads
  bool gone = false;
  std::deque<std::vector<AsyncCopy>> async_copies;
  Fiber fiber;
};

class Block {
 public:
  void run(const Launch& launch, const std::function<void()>& thread);
  void meet(Meeting meeting, unsigned mask);
  bool passes(const Place& barrier);  // without waiting, because of an error that was planted

  Thread* running = nullptr;
  std::vector<unsigned char> dynamic;
  std::uint64_t order = number_in_environment("CUDA_ON_HOST_ORDER");
  Plant plant = plant_in_environment();
  std::map<const void*, std::set<Place>> seen;

 private:
  void run_one(unsigned block, const std::function<void()>& thread);
  void spoil_shared_memory();
  Thread& next();
  void lanes_meet(unsigned number);
  void fail(std::string what) { error_ = std::move(what); }
  void take_away(unsigned first, unsigned arrived);
  void ready(Thread& thread);
  template <class Condition>
  void ready_where(unsigned first, unsigned end, const Condition& condition);
  [[noreturn]] void stuck() const;
  std::uint64_t random();

  std::deque<Thread> threads_;  // grows; the first `size_` are of the block
  std::vector<Thread*> ready_;
  std::size_t first_ready_ = 0;                   // of ready_, in order 0
  std::array<unsigned, 1024 / lanes> waiting_{};  // lanes of each warp that wait for others of it
  unsigned count_ = 0, gone_ = 0, at_barrier_ = 0;
  std::string error_;
  const void* kernel_ = nullptr;
  std::uint64_t state_ = 1;
};

std::string name_of(Meeting meeting) {
  switch (meeting) {
    case Meeting::none: return "nowhere";
    case Meeting::block: return "__syncthreads";
    case Meeting::warp_barrier: return "__syncwarp";
    case Meeting::ballot: return "__ballot_sync";
    case Meeting::match: return "__match_any_sync";
    case Meeting::largest: return "__reduce_max_sync";
    case Meeting::shuffle: return "__shfl_sync";
  }
  return "?";
}

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

std::uint64_t Block::random() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_;
}

void Block::ready(Thread& thread) {
  if (thread.waits_at != Meeting::none && thread.waits_at != Meeting::block) --waiting_[thread.index.x / lanes];
  thread.waits_at = Meeting::none;
  ready_.push_back(&thread);
}

// A fiber that has failed, or whose block has, is not gone on with.
void Block::meet(Meeting meeting, unsigned mask) {
  Thread& self = *running;
  self.waits_at = meeting;
  self.mask = mask;
  if (meeting != Meeting::block) ++waiting_[self.index.x / lanes];
  self.fiber.leave();
}

// Where this thread waits for lanes of its warp, and all of them have come, they go on.
void Block::lanes_meet(unsigned number) {
  const unsigned first = number / lanes * lanes, lane = number % lanes, end = std::min(first + lanes, count_);
  const Thread& thread = threads_[number];
  if (thread.gone || thread.waits_at == Meeting::none || thread.waits_at == Meeting::block) return;
  if (!(thread.mask & 1u << lane))
    return fail(name_of(thread.waits_at) + " with the mask " + hex(thread.mask) + " from lane " + std::to_string(lane) +
                ", which is not in it");
  unsigned arrived = 0;
  bool alike = true;
  for (unsigned i = first; i < end; ++i) {
    const Thread& other = threads_[i];
    if (!(thread.mask & 1u << (i - first)) || other.gone) continue;
    if (other.waits_at == Meeting::none || other.waits_at == Meeting::block) return;
    arrived |= 1u << (i - first);
    alike = alike && other.waits_at == thread.waits_at && other.mask == thread.mask;
  }
  if (!alike)
    return fail("lanes of a warp meet in different places: " + name_of(thread.waits_at) + " with the mask " +
                hex(thread.mask) + " in lane " + std::to_string(lane) + ", something else in another");
  take_away(first, arrived);
}

void Block::take_away(unsigned first, unsigned arrived) {
  std::array<std::uint64_t, lanes> brought{};
  for (unsigned lane = 0; lane < lanes; ++lane)
    if (arrived & 1u << lane) brought[lane] = threads_[first + lane].bits;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    if (!(arrived & 1u << lane)) continue;
    Thread& thread = threads_[first + lane];
    std::uint64_t result = 0;
    if (thread.waits_at == Meeting::shuffle) {
      if (!(arrived & 1u << thread.from))
        return fail("__shfl_sync: lane " + std::to_string(lane) + " reads from lane " + std::to_string(thread.from) +
                    ", which is not there");
      result = brought[static_cast<std::size_t>(thread.from)];
    }
    for (unsigned other = 0; other < lanes; ++other) {
      if (!(arrived & 1u << other)) continue;
      if (thread.waits_at == Meeting::ballot && brought[other]) result |= 1u << other;
      if (thread.waits_at == Meeting::match && brought[other] == brought[lane]) result |= 1u << other;
      if (thread.waits_at == Meeting::largest) result = std::max(result, brought[other]);
    }
    thread.bits = result;
  }
  ready_where(first, std::min(first + lanes, count_),
              [&](const Thread& thread) { return (arrived >> thread.index.x % lanes & 1) != 0; });
}

bool Block::passes(const Place& barrier) {
  seen[kernel_].insert(barrier);
  return plant.error == Plant::Error::barrier && plant.is_in(kernel_) && plant.barrier == barrier;
}

// In the orders 0 and 1 what has just become ready goes on, so that a warp runs ahead of the others as far as it can: the
// first, or the last.
Thread& Block::next() {
  const std::size_t at = order < 2 ? ready_.size() - 1 : random() % ready_.size();
  Thread& thread = *ready_[at];
  ready_[at] = ready_.back();
  ready_.pop_back();
  return thread;
}

// Those of the threads [first, end) for which it holds.
template <class Condition>
void Block::ready_where(unsigned first, unsigned end, const Condition& condition) {
  for (unsigned i = 0; i < end - first; ++i) {
    Thread& thread = threads_[order == 0 ? end - 1 - i : first + i];
    if (condition(thread)) ready(thread);
  }
}

void Block::stuck() const {
  std::string at;
  for (unsigned i = 0; i < count_; ++i)
    if (!threads_[i].gone && at.find(name_of(threads_[i].waits_at)) == std::string::npos)
      at += (at.empty() ? "" : ", ") + name_of(threads_[i].waits_at) + " (thread " + std::to_string(i) + ")";
  throw std::runtime_error("threads wait for each other in different places: " + at);
}

// Every byte 0xff: NaN as a float, a double or a bf16, and an index that is none.
void Block::spoil_shared_memory() {
  for (char* at = cuda_shared_begin; at < cuda_shared_end; ++at) *static_cast<volatile char*>(at) = '\xff';
  std::fill(dynamic.begin(), dynamic.end(), 0xff);
}

void Block::run_one(unsigned number, const std::function<void()>& thread) {
  now.block = {number, 0, 0};
  spoil_shared_memory();
  gone_ = at_barrier_ = 0;
  ready_.clear();
  waiting_ = {};
  static const std::function<void()> nothing = [] {};
  const bool is_idle = plant.is_in(kernel_) && plant.error == Plant::Error::thread;
  for (unsigned i = 0; i < count_; ++i) {
    Thread& t = threads_[i];
    t.gone = false;
    t.async_copies.assign(1, {});
    t.waits_at = Meeting::none;
    t.fiber.begin(is_idle && i == plant.thread ? nothing : thread);
  }
  ready_where(0, count_, [](const Thread&) { return true; });
  while (gone_ < count_) {
    if (ready_.empty()) stuck();
    Thread& t = next();
    running = &t;
    now.thread = t.index;
    t.fiber.resume();
    running = nullptr;
    const unsigned thread_number = t.index.x;
    if (t.fiber.done()) {
      t.gone = true;
      ++gone_;
    } else if (t.waits_at == Meeting::block) {
      ++at_barrier_;
    }
    if (at_barrier_ > 0 && at_barrier_ == count_ - gone_) {
      at_barrier_ = 0;
      ready_where(0, count_, [](const Thread& thread) { return !thread.gone; });
    } else if (t.gone) {  // others may have waited for it alone
      if (waiting_[thread_number / lanes] == 0) continue;
      const unsigned first = thread_number / lanes * lanes;
      for (unsigned i = first; i < std::min(first + lanes, count_); ++i) lanes_meet(i);
    } else {
      lanes_meet(thread_number);
    }
    if (!error_.empty()) throw std::runtime_error(std::exchange(error_, {}));
  }
}

void Block::run(const Launch& launch, const std::function<void()>& thread) {
  if (running) throw std::logic_error("a kernel is launched from a kernel");
  count_ = launch.threads;
  kernel_ = launch.kernel;
  seen[kernel_];
  now.block_size = {launch.threads, 1, 1};
  now.grid_size = {launch.blocks, 1, 1};
  dynamic.assign(launch.shared, 0);
  while (threads_.size() < count_) {
    Thread& t = threads_.emplace_back();
    t.index.x = static_cast<unsigned>(threads_.size()) - 1;
  }
  try {
    const bool is_short = plant.is_in(kernel_) && plant.error == Plant::Error::last_block;
    for (unsigned b = 0; b < launch.blocks - (is_short ? 1 : 0); ++b) {
      state_ = order * 0x9E3779B97F4A7C15ull + b + 1;
      run_one(b, thread);
    }
  } catch (...) {
    for (Thread& t : threads_) t.fiber.abandon();
    error_.clear();
    throw;
  }
}

Block the_block;
Block& block() { return the_block; }

// What a lane brings where lanes meet, and what it takes away.
std::uint64_t exchange(Meeting meeting, unsigned mask, std::uint64_t bits, int from = 0) {
  Thread& self = *block().running;
  self.bits = bits;
  self.from = from;
  block().meet(meeting, mask);
  return self.bits;
}

}  // namespace

Now now;
std::deque<std::vector<AsyncCopy>>& async_copies() { return block().running->async_copies; }
void* dynamic_shared_memory() { return block().dynamic.data(); }

void block_barrier(const Place& place) {
  if (block().passes(place)) return;
  block().meet(Meeting::block, 0);
}
void warp_barrier(unsigned mask) { exchange(Meeting::warp_barrier, mask, 0); }
unsigned ballot(unsigned mask, bool predicate) {
  return static_cast<unsigned>(exchange(Meeting::ballot, mask, predicate ? 1 : 0));
}
unsigned match(unsigned mask, std::uint64_t value) {
  return static_cast<unsigned>(exchange(Meeting::match, mask, value));
}

unsigned largest(unsigned mask, unsigned value) {
  return static_cast<unsigned>(exchange(Meeting::largest, mask, value));
}

std::uint64_t shuffle_bits(unsigned mask, std::uint64_t bits, Shuffle how, int by, int width) {
  const int lane = static_cast<int>(now.thread.x % lanes), first = lane / width * width;
  int from = lane;
  if (how == Shuffle::from) from = first + by % width;
  if (how == Shuffle::across) from = lane ^ by;
  if (how == Shuffle::up) from = lane - by;
  if (how == Shuffle::down) from = lane + by;
  if (from < first || from >= first + width) from = lane;  // what a device does: the lane's own
  return exchange(Meeting::shuffle, mask, bits, from);
}

void run_grid(const Launch& launch, const std::function<void()>& thread) { block().run(launch, thread); }

void set_order(std::uint64_t order) { block().order = order; }
void set_plant(const Plant& plant) { block().plant = plant; }
std::map<const void*, std::set<Place>> take_kernels_seen() { return std::exchange(block().seen, {}); }

}  // namespace cuda_on_host
