// A block of a kernel on the CPU: its threads are fibers of one thread of the host, in an order that a seed shuffles. A fiber goes
// on until it waits: at a barrier of the block, or where the lanes of its warp meet. So a barrier that is missing shows: some
// order reads what was not written yet, which is NaN.
//
// What a device leaves undefined is an error here: lanes that meet in different places or under different masks, a lane
// that reads from one that is not there, a barrier that some threads wait at while others wait for them elsewhere.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace cuda_on_host {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Size {
  unsigned x = 1, y = 1, z = 1;
};

// ---- of the thread that runs ----
struct Now {
  Index thread, block;
  Size block_size, grid_size;
};
extern Now now;
void* dynamic_shared_memory();

// A barrier of the block is known by where it is written.
struct Place {
  std::string_view file;
  int line = 0;
  auto operator<=>(const Place&) const = default;
};
void block_barrier(const Place& place);
void warp_barrier(unsigned mask);
unsigned ballot(unsigned mask, bool predicate);
unsigned match(unsigned mask, std::uint64_t value);
unsigned largest(unsigned mask, unsigned value);

enum class Shuffle : std::uint8_t { from, across, up, down };
std::uint64_t shuffle_bits(unsigned mask, std::uint64_t bits, Shuffle how, int by, int width);
template <class T>
T shuffle(unsigned mask, T value, Shuffle how, int by, int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle_bits(mask, bits, how, by, width);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Copies to shared memory that the thread which runs has begun and not waited for, in groups; the last is still open.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes;
  bool there;  // or zeros
};
std::deque<std::vector<AsyncCopy>>& async_copies();

// ---- the host's side ----
struct Launch {
  unsigned blocks, threads;
  std::size_t shared;
  const void* kernel;
};

// Runs a grid: `thread` once for every thread. Throws std::runtime_error for what a device leaves undefined.
void run_grid(const Launch& launch, const std::function<void()>& thread);

// Which thread goes on. 0: the first warp runs ahead of the others as far as it can; 1: the last does; others: shuffled by that
// number, anew for each block.
void set_order(std::uint64_t order);

struct Stream;
struct Event;
// False where the device would refuse the launch.
bool queue_launch(Stream* stream, const Launch& launch, std::function<void()> thread);
// Other work of a stream: what a library would do on it.
void queue(Stream* stream, std::function<void()> work);
// Of such work, when the stream has come to it: memory that another stream takes later is not there yet.
void expect_taken(const Stream* by, const void* at);

// The environment sets these at start: CUDA_ON_HOST_ORDER=2, CUDA_ON_HOST_LATE=1, CUDA_ON_HOST_DEVICES=8; and a GPU that is wrong,
// CUDA_ON_HOST_IDLE_THREAD=5: that thread of each block of every kernel does nothing.
//
// How a stream works: at once, when it is called; or as late as a wait allows, which shows a host that does not wait. Then of
// several streams each waits for the others where it was told to, and there alone; others_first: a stream that is waited
// for lets them go before it, which shows work that should have been behind its own.
void set_late(bool late, bool others_first = false);

// ---- errors that are planted into kernels as they are ----
struct Plant {
  enum class Error : std::uint8_t { none, barrier, last_block, thread } error = Error::none;
  const void* kernel = nullptr;
  Place barrier = {};   // which threads of that kernel pass without waiting
  unsigned thread = 0;  // of each block, which does nothing
  bool in_every_kernel = false;

  bool is_in(const void* launched) const { return in_every_kernel || kernel == launched; }
};
void set_plant(const Plant& plant);
// What was launched since the last call, and the barriers that each has met.
std::map<const void*, std::set<Place>> take_kernels_seen();

// ---- what is tried with ----
struct Machine {
  bool driver = true;
  int devices = 1;
  int driver_version = 13000;
  int compute_capability = 90;                       // 10 times it
  std::size_t memory = std::size_t{1} << 40;         // bytes of the device
  std::size_t shared_memory = 227 * 1024;            // of a block, at most
  std::size_t locked_memory = std::size_t{1} << 40;  // of the host, that the driver may page-lock
  bool fused_attention = false;                      // the library's; without it, our own kernels take every shape
  bool profiled = false;                             // a profiler watches: ranges are noted
  int failing_call = 0;  // counted from now on, of those of the runtime and of cuBLASLt that may fail; 0: none
};
Machine& machine();
// Whether this call is the one that fails.
bool call_fails();
// The ranges since the last call, each with those around it: "layer 0/attention/gemm". Throws where one has not ended.
std::vector<std::string> take_ranges();
// What was made and not given back.
struct Live {
  int streams = 0, events = 0, blocks = 0, locked_blocks = 0, library_handles = 0;
  bool operator==(const Live&) const = default;
};
Live& live();
std::size_t allocations();   // so far: of the device and page-locked
std::size_t bytes_in_use();  // of the device
std::size_t waits();         // of the host, so far, for a stream or an event

}  // namespace cuda_on_host
