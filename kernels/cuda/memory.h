// The device's memory, its stream, and what lies between the device and the host. The device runs behind the host: all work
// is queued on one stream and takes effect in the order of the calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace smoe::cuda {

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// The events of Backend::record(): as many at once as the ring has. An event whose place was taken by a later one is waited
// for as that one: longer than it need be, never too short.
class Events {
 public:
  explicit Events(const Stream& stream);
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  Event record();
  void wait(Event event) const;

 private:
  static constexpr std::size_t ring = 256;
  const Stream& stream_;
  std::uint64_t last_ = 0;
  std::array<cudaEvent_t, ring> events_{};
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
  std::byte* room_ = nullptr;  // two halves
  std::array<cudaEvent_t, 2> sent_{};
  std::size_t half_ = 0, used_ = 0;
};

}  // namespace smoe::cuda
