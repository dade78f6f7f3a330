// The device's memory, its stream, and what lies between the device and the host. The device runs behind the host: all work
// of the ops is queued on one stream and takes effect in the order of the calls; collectives have streams beside it (communication.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace smoe::cuda {

// What a call of CUDA's has made, and the call that gives it back: also where a constructor ends half way.
template <auto give_back>
struct GivenBackBy {
  template <class T>
  void operator()(T* made) const noexcept {
    give_back(made);
  }
};
using OwnedStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, GivenBackBy<cudaStreamDestroy>>;
using OwnedEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, GivenBackBy<cudaEventDestroy>>;
template <class T>
using PageLocked = std::unique_ptr<T, GivenBackBy<cudaFreeHost>>;

OwnedEvent make_event();        // that only tells what is done
OwnedEvent make_timed_event();  // for cudaEventElapsedTime
void* take_page_locked(std::size_t bytes);
// So many on the host, in memory that the device can reach.
template <class T>
PageLocked<T> page_locked(std::size_t count) {
  return PageLocked<T>(static_cast<T*>(take_page_locked(count * sizeof(T))));
}

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_.get(); }
  void synchronize() const;

 private:
  OwnedStream stream_;
};

// The events of Backend::record(): as many at once as the ring has. An event whose place was taken by a later one is waited
// for as that one: longer than it need be, never too short.
class Events {
 public:
  explicit Events(const Stream& stream);
  Event record();
  void wait(Event event) const;

 private:
  static constexpr std::size_t ring = 256;
  const Stream& stream_;
  std::uint64_t last_ = 0;
  std::array<OwnedEvent, ring> events_;
};

// The events of Backend::stamp(), on any stream of the backend. Once made they are kept, and recorded anew after forget().
class Stamps {
 public:
  Stamp record(cudaStream_t stream);
  double seconds_between(Stamp from, Stamp to) const;  // throws std::runtime_error where the device is not past both
  void forget() { used_ = 0; }

 private:
  cudaEvent_t at(Stamp stamp) const;

  std::vector<OwnedEvent> events_;  // the first used_ are those of stamps 1, 2, ...
  std::size_t used_ = 0;
};

// Bytes of the device, taken and given back in the order of the stream's work, from the driver's pool, which keeps what was
// given back. Throws std::bad_alloc where there are not so many, also after the pool has given up all that it kept.
void* take(const Stream& stream, std::size_t bytes);
void give_back(const Stream& stream, void* data) noexcept;

// Memory that an op needs for itself, until the next op takes it. It grows on first use, then stays.
class Workspace {
 public:
  explicit Workspace(const Stream& stream) : stream_(stream) {}
  ~Workspace() { give_back(stream_, data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* bytes(std::size_t count);
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  const Stream& stream_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Copies from memory of the host, which may be written again on return: through page-locked memory in two halves, so that one
// is filled while the other is on its way.
class Upload {
 public:
  explicit Upload(const Stream& stream);
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  void operator()(void* to, const void* host, std::size_t bytes);

 private:
  static constexpr std::size_t half_bytes = std::size_t{1} << 20;
  void next_half();

  const Stream& stream_;
  PageLocked<std::byte> room_;  // two halves
  std::array<OwnedEvent, 2> sent_;
  std::size_t half_ = 0, used_ = 0;
};

}  // namespace smoe::cuda
