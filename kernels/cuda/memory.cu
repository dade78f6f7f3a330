#include "kernels/cuda/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/arena.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda_device.h"

namespace smoe {
namespace cuda {

namespace {

// The device that backends are made on, and the pool that cudaMallocAsync takes from.
cudaMemPool_t pool_of_device() {
  int device = 0;
  cudaMemPool_t pool = nullptr;
  check("the device", cudaGetDevice(&device));
  check("the pool of memory", cudaDeviceGetDefaultMemPool(&pool, device));
  return pool;
}

std::uint64_t bytes_of_pool(cudaMemPool_t pool, cudaMemPoolAttr which) {
  std::uint64_t bytes = 0;
  check("the pool of memory", cudaMemPoolGetAttribute(pool, which, &bytes));
  return bytes;
}

}  // namespace

OwnedEvent make_event() {
  cudaEvent_t event = nullptr;
  check("an event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return OwnedEvent(event);
}

OwnedEvent make_timed_event() {
  cudaEvent_t event = nullptr;
  check("an event", cudaEventCreate(&event));
  return OwnedEvent(event);
}

void* take_page_locked(std::size_t bytes) {
  void* data = nullptr;
  check("page-locked memory", cudaMallocHost(&data, bytes));
  return data;
}

Stream::Stream() {
  cudaStream_t stream = nullptr;
  check("a stream", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  stream_.reset(stream);
  // Without this the pool gives back to the driver, at every wait, what is not in use.
  std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
  check("the pool of memory", cudaMemPoolSetAttribute(pool_of_device(), cudaMemPoolAttrReleaseThreshold, &all));
}

Stream::~Stream() { cudaStreamSynchronize(*this); }

void Stream::synchronize() const { check("earlier work", cudaStreamSynchronize(*this)); }

Events::Events(const Stream& stream) : stream_(stream) {
  for (OwnedEvent& event : events_) event = make_event();
}

Event Events::record() {
  ++last_;
  check("an event", cudaEventRecord(events_[last_ % ring].get(), stream_));
  return {last_};
}

void Events::wait(Event event) const {
  check("earlier work", cudaEventSynchronize(events_[event.number % ring].get()));
}

Stamp Stamps::record(cudaStream_t stream) {
  if (used_ == events_.size()) events_.push_back(make_timed_event());
  check("a stamp", cudaEventRecord(events_[used_].get(), stream));
  return {++used_};
}

cudaEvent_t Stamps::at(Stamp stamp) const {
  if (stamp.number == 0 || stamp.number > used_) throw std::logic_error("a stamp that was not made, or was forgotten");
  return events_[stamp.number - 1].get();
}

double Stamps::seconds_between(Stamp from, Stamp to) const {
  float milliseconds = 0;
  check("the time between two stamps", cudaEventElapsedTime(&milliseconds, at(from), at(to)));
  return 1e-3 * static_cast<double>(milliseconds);
}

void* take(const Stream& stream, std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 1);
  void* data = nullptr;
  cudaError_t code = cudaMallocAsync(&data, bytes, stream);
  if (code == cudaErrorMemoryAllocation) {
    // What was given back may still be in use by earlier work, or lie in the pool in pieces.
    cudaGetLastError();  // this error is over: the next call starts without it
    stream.synchronize();
    check("the pool of memory", cudaMemPoolTrimTo(pool_of_device(), 0));
    code = cudaMallocAsync(&data, bytes, stream);
  }
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(bytes, bytes_of_pool(pool_of_device(), cudaMemPoolAttrUsedMemCurrent), cuda_memory());
  }
  check("memory of the device", code);
  return data;
}

void give_back(const Stream& stream, void* data) noexcept {
  if (data) cudaFreeAsync(data, stream);
}

void* Workspace::bytes(std::size_t count) {
  if (count > bytes_) {
    give_back(stream_, data_);
    data_ = nullptr;
    bytes_ = 0;
    data_ = cuda::take(stream_, count);
    bytes_ = count;
  }
  return data_;
}

Upload::Upload(const Stream& stream) : stream_(stream), room_(page_locked<std::byte>(2 * half_bytes)) {
  for (OwnedEvent& event : sent_) event = make_event();
}

Upload::~Upload() { cudaStreamSynchronize(stream_); }  // copies under way read the room

void Upload::next_half() {
  check("a copy to the device", cudaEventRecord(sent_[half_].get(), stream_));
  half_ = 1 - half_;
  used_ = 0;
  check("a copy to the device", cudaEventSynchronize(sent_[half_].get()));  // of an event never recorded: at once
}

void Upload::operator()(void* to, const void* host, std::size_t bytes) {
  const auto* from = static_cast<const std::byte*>(host);
  auto* at = static_cast<std::byte*>(to);
  while (bytes > 0) {
    if (used_ == half_bytes) next_half();
    const std::size_t part = std::min(bytes, half_bytes - used_);
    std::byte* room = room_.get() + half_ * half_bytes + used_;
    std::memcpy(room, from, part);
    check("a copy to the device", cudaMemcpyAsync(at, room, part, cudaMemcpyHostToDevice, stream_));
    used_ += part, from += part, at += part, bytes -= part;
  }
}

}  // namespace cuda

// ---- what the device has ----

DeviceMemory cuda_memory() {
  if (!cuda_missing().empty()) return {};
  std::size_t free = 0, total = 0;
  cuda::check("memory of the device", cudaMemGetInfo(&free, &total));
  // What was given back may lie in the pool, which is this process's own.
  const cudaMemPool_t pool = cuda::pool_of_device();
  const std::uint64_t kept = cuda::bytes_of_pool(pool, cudaMemPoolAttrReservedMemCurrent) -
                             cuda::bytes_of_pool(pool, cudaMemPoolAttrUsedMemCurrent);
  return {.total = total, .free = free + kept, .peak = cuda::bytes_of_pool(pool, cudaMemPoolAttrReservedMemHigh)};
}

void restart_cuda_peak() {
  if (!cuda_missing().empty()) return;
  std::uint64_t none = 0;  // the one value that it may be set to: from here on, what is reserved now is the least
  cuda::check("memory of the device",
              cudaMemPoolSetAttribute(cuda::pool_of_device(), cudaMemPoolAttrReservedMemHigh, &none));
}

int cuda_devices() {
  int count = 0;
  if (cuda_missing().empty()) cuda::check("the device", cudaGetDeviceCount(&count));
  return count;
}

void use_cuda_device(int number) {
  if (const int devices = cuda_devices(); devices > 0) cuda::check("the device", cudaSetDevice(number % devices));
}

CudaDevice cuda_device() {
  CudaDevice found;
  if (!cuda_missing().empty()) return found;
  int device = 0;
  cudaDeviceProp properties;
  cuda::check("the device", cudaGetDevice(&device));
  cuda::check("the device", cudaGetDeviceProperties(&properties, device));
  cuda::check("the device", cudaDriverGetVersion(&found.driver_version));
  static_assert(sizeof found.uuid == sizeof properties.uuid);
  std::memcpy(found.uuid.data(), &properties.uuid, sizeof found.uuid);
  return found;
}

// ---- Backend: memory and copies ----

void* CudaBackend::allocate(std::size_t bytes) { return cuda::take(stream_, bytes); }

void CudaBackend::release(void* data, std::size_t) noexcept { cuda::give_back(stream_, data); }

void* CudaBackend::allocate_host(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t code = cudaMallocHost(&data, std::max<std::size_t>(bytes, 1));
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory("out of page-locked memory of the host: " + std::to_string(bytes) +
                      " bytes more are wanted for copies from the GPU (ulimit -l limits it)");
  }
  cuda::check("page-locked memory", code);
  return data;
}

void CudaBackend::release_host(void* data, std::size_t) noexcept {
  cudaStreamSynchronize(stream_);
  cudaFreeHost(data);
}

Event CudaBackend::record() { return events_.record(); }

void CudaBackend::wait(Event event) {
  events_.wait(event);
  complaints_.report();
}

void CudaBackend::synchronize() {
  stream_.synchronize();
  complaints_.report();
}

Stamp CudaBackend::stamp() { return stamps_.record(stream_); }
double CudaBackend::seconds_between(Stamp from, Stamp to) { return stamps_.seconds_between(from, to); }
void CudaBackend::forget_stamps() { stamps_.forget(); }

CommunicationStream* CudaBackend::communication(Lane lane) {
  auto& made = lanes_[static_cast<std::size_t>(lane)];
  if (!made) made = std::make_unique<cuda::LaneStream>(stream_, stamps_, lane);
  return made.get();
}

void CudaBackend::do_copy_to_host(void* host, const Tensor& from) {
  do_start_copy_to_host(host, from);
  synchronize();
}

void CudaBackend::do_start_copy_to_host(void* host, const Tensor& from) {
  if (from.bytes() == 0) return;
  cuda::check("copy_to_host", cudaMemcpyAsync(host, from.raw(), from.bytes(), cudaMemcpyDeviceToHost, stream_));
}

void CudaBackend::do_copy_from_host(const Tensor& to, const void* host) { upload_(to.raw(), host, to.bytes()); }

void CudaBackend::do_copy(const Tensor& to, const Tensor& from) {
  if (from.bytes() == 0) return;
  cuda::check("copy", cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToDevice, stream_));
}

}  // namespace smoe
