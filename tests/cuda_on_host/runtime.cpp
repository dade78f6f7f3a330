// The calls of CUDA's runtime that kernels/cuda makes. A stream is a queue: its work is done when it is called, or, late, when
// somebody waits. What a device cannot do is refused as it would be, and a wrong use is an exception.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/stamp.h"
#include "tests/cuda_on_host/clock.h"

namespace cuda_on_host {

struct Event {
  Stream* stream = nullptr;
  std::uint64_t after = 0;  // how much of the stream's work
  // Of an event that keeps time: nanoseconds at which its stream has come by it; 0: not yet. The work that writes it may
  // outlive the event.
  std::shared_ptr<std::int64_t> time = {};
};

struct Stream {
  std::deque<std::function<void()>> waiting;
  std::uint64_t done = 0;

  void go_on(std::uint64_t until);
  std::uint64_t queued() const { return done + waiting.size(); }
};

namespace {

// Memory of the device is there from a point of its stream on: other streams may use it behind that point.
struct Taken {
  const Stream* stream;
  std::uint64_t after;
};

struct Memory {
  std::map<const void*, std::size_t> of_device, locked;
  std::map<const void*, Taken> taken;
  std::size_t allocations = 0, in_use = 0, most_in_use = 0;
};
Memory& memory() {
  static Memory the_memory;
  return the_memory;
}

struct Settings {
  std::size_t waits = 0;
  bool late = std::getenv("CUDA_ON_HOST_LATE") != nullptr;
  bool others_first = false, inside = false;
  int device = 0;
  float between_events = 0;
  std::unordered_map<const void*, std::size_t> shared_limits;
};
Settings& settings() {
  static Settings the_settings;
  return the_settings;
}

std::vector<Stream*>& streams() {
  static std::vector<Stream*> all;
  return all;
}

bool lies_in(const std::map<const void*, std::size_t>& blocks, const void* at, std::size_t bytes) {
  auto block = blocks.upper_bound(at);
  if (block == blocks.begin()) return false;
  --block;
  return static_cast<const char*>(at) + bytes <= static_cast<const char*>(block->first) + block->second;
}

std::size_t free_bytes() { return machine().memory - std::min(machine().memory, memory().in_use); }

void expect_on_device(const char* call, const void* at, std::size_t bytes) {
  if (!lies_in(memory().of_device, at, bytes))
    throw std::logic_error(std::string(call) + ": what should be memory of the device is not, or ends too early");
}

constexpr std::size_t alignment = 256;
constexpr int multiprocessors = 3;

}  // namespace

void Stream::go_on(std::uint64_t until) {
  if (settings().others_first && !settings().inside) {
    settings().inside = true;
    const std::shared_ptr<void> whatever_comes(nullptr, [](void*) { settings().inside = false; });
    for (Stream* other : streams())
      if (other != this) other->go_on(other->queued());
  }
  while (done < until && !waiting.empty()) {
    const std::function<void()> work = std::move(waiting.front());
    waiting.pop_front();
    ++done;
    work();
  }
}

Machine& machine() {
  static Machine the_machine = [] {
    Machine made;
    if (const char* devices = std::getenv("CUDA_ON_HOST_DEVICES")) made.devices = std::atoi(devices);
    return made;
  }();
  return the_machine;
}
bool call_fails() { return machine().failing_call > 0 && --machine().failing_call == 0; }
Live& live() {
  static Live the_live;
  the_live.blocks = static_cast<int>(memory().of_device.size());
  the_live.locked_blocks = static_cast<int>(memory().locked.size());
  return the_live;
}
std::size_t allocations() { return memory().allocations; }
std::size_t bytes_in_use() { return memory().in_use; }
std::size_t waits() { return settings().waits; }
void set_late(bool late, bool others_first) { settings().late = late, settings().others_first = others_first; }

void expect_taken(const Stream* by, const void* at) {
  auto found = memory().taken.upper_bound(at);
  if (found == memory().taken.begin()) return;
  const auto& [stream, after] = (--found)->second;
  if (stream != by && stream->done < after)
    throw std::logic_error("a stream uses memory before the stream that takes it has come to that");
}
void set_time_between_events(float milliseconds) { settings().between_events = milliseconds; }

void queue(Stream* stream, std::function<void()> work) {
  stream->waiting.push_back(std::move(work));
  if (!settings().late) stream->go_on(stream->queued());
}

bool queue_launch(Stream* stream, const Launch& launch, std::function<void()> thread) {
  constexpr std::size_t static_limit = 40 * 1024;  // and what is declared
  std::size_t allowed = static_limit;
  if (const auto raised = settings().shared_limits.find(launch.kernel); raised != settings().shared_limits.end())
    allowed = raised->second;
  if (launch.blocks == 0 || launch.blocks > 0x7fffffffu || launch.threads == 0 || launch.threads > 1024 ||
      launch.shared > allowed || launch.shared > machine().shared_memory)
    return false;
  queue(stream, [launch, thread = std::move(thread)] { run_grid(launch, thread); });
  return true;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorNotReady: return "device not ready";
  }
  return "unknown error";
}
const char* cudaGetErrorName(cudaError_t code) { return code == cudaSuccess ? "cudaSuccess" : "cudaError"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (!machine().driver || machine().driver_version < runtime) return cudaErrorInsufficientDriver;
  if (machine().devices == 0) return cudaErrorNoDevice;
  *count = machine().devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  if (call_fails()) return cudaErrorLaunchFailure;
  return *device = settings().device, cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= machine().devices) return cudaErrorInvalidValue;
  return settings().device = device, cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  return *version = machine().driver ? machine().driver_version : 0, cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (call_fails()) return cudaErrorLaunchFailure;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors; break;
    case cudaDevAttrComputeCapabilityMajor: *value = machine().compute_capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = machine().compute_capability % 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(machine().shared_memory); break;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {.name = "emulated on the host",
                 .totalGlobalMem = machine().memory,
                 .multiProcessorCount = multiprocessors,
                 .major = machine().compute_capability / 10,
                 .minor = machine().compute_capability % 10,
                 .uuid = {{static_cast<char>(1 + device)}}};
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = machine().memory;
  *free = free_bytes();
  return cudaSuccess;
}
// The pool keeps nothing of what is given back.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  if (call_fails()) return cudaErrorLaunchFailure;
  return *pool = &machine(), cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const std::uint64_t bytes = attribute == cudaMemPoolAttrReservedMemHigh ? memory().most_in_use : memory().in_use;
  std::memcpy(value, &bytes, sizeof bytes);
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  if (call_fails()) return cudaErrorLaunchFailure;
  if (attribute == cudaMemPoolAttrReleaseThreshold) return cudaSuccess;
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, value, sizeof bytes);
  if (attribute != cudaMemPoolAttrReservedMemHigh || bytes != 0) return cudaErrorInvalidValue;
  memory().most_in_use = memory().in_use;
  return cudaSuccess;
}

// ---- memory: as new, all of its bytes are 0xff: NaN, and no index ----

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  if (call_fails()) return cudaErrorLaunchFailure;
  if (bytes > free_bytes()) return cudaErrorMemoryAllocation;
  *data = ::operator new (bytes, std::align_val_t{alignment});
  std::memset(*data, 0xff, bytes);
  memory().of_device[*data] = bytes;
  queue(stream, [] {});
  memory().taken[*data] = {stream, stream->queued()};
  memory().in_use += bytes;
  memory().most_in_use = std::max(memory().most_in_use, memory().in_use);
  ++memory().allocations;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  queue(stream, [data] {
    const auto block = memory().of_device.find(data);
    if (block == memory().of_device.end()) throw std::logic_error("cudaFreeAsync: not memory of the device");
    memory().in_use -= block->second;
    memory().of_device.erase(block);
    memory().taken.erase(data);
    ::operator delete (data, std::align_val_t{alignment});
  });
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  if (call_fails()) return cudaErrorLaunchFailure;
  if (bytes > machine().locked_memory) return cudaErrorMemoryAllocation;
  *data = ::operator new (bytes, std::align_val_t{alignment});
  std::memset(*data, 0xff, bytes);
  memory().locked[*data] = bytes;
  ++memory().allocations;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  if (data && memory().locked.erase(data) == 0) throw std::logic_error("cudaFreeHost: not page-locked memory");
  ::operator delete (data, std::align_val_t{alignment});
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind != cudaMemcpyHostToDevice) expect_on_device("cudaMemcpyAsync, from", from, bytes);
  if (kind != cudaMemcpyDeviceToHost) expect_on_device("cudaMemcpyAsync, to", to, bytes);
  const void* host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
  queue(stream, [=] { std::memcpy(to, from, bytes); });
  // The driver waits for a copy whose host memory may be paged out.
  if (host && !lies_in(memory().locked, host, bytes)) cudaStreamSynchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  expect_on_device("cudaMemsetAsync", to, bytes);
  queue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

// ---- streams and events ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (call_fails()) return cudaErrorLaunchFailure;
  ++live().streams;
  streams().push_back(*stream = new Stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->go_on(stream->queued());
  std::erase(streams(), stream);
  std::erase_if(memory().taken, [stream](const auto& entry) { return entry.second.stream == stream; });
  delete stream;
  --live().streams;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++settings().waits;
  stream->go_on(stream->queued());
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->stream && event->stream != stream)
    queue(stream, [of = event->stream, after = event->after] {
      const auto& all = streams();  // one that has ended has done all its work
      if (std::find(all.begin(), all.end(), of) != all.end()) of->go_on(after);
    });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return !event->stream || event->stream->done >= event->after ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (call_fails()) return cudaErrorLaunchFailure;
  ++live().events;
  *event = new cuda_on_host::Event;
  if (!(flags & cudaEventDisableTiming)) (*event)->time = std::make_shared<std::int64_t>(0);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --live().events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (event->time) {
    event->time = std::make_shared<std::int64_t>(0);  // what was recorded before is forgotten
    queue(stream, [time = event->time] { *time = smoe::host_nanoseconds(); });
  }
  event->stream = stream;
  event->after = stream->queued();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream) ++settings().waits;  // of an event never recorded: none
  if (event->stream) event->stream->go_on(event->after);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const cudaEvent_t event : {begin, end}) {
    if (!event->time || !event->stream) return cudaErrorInvalidValue;
    if (*event->time == 0) return cudaErrorNotReady;
  }
  const float set = settings().between_events;
  *milliseconds = set > 0 ? set : static_cast<float>(1e-6 * static_cast<double>(*end->time - *begin->time));
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (static_cast<std::size_t>(value) > machine().shared_memory) return cudaErrorInvalidValue;
  settings().shared_limits[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
