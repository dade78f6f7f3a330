// A device's numbers where the host can read them: memory of the host, kept from call to call, that a tensor is copied
// into while the host goes on.
//
//   mirror.start_fetch(backend, counts);    // after the op that writes counts
//   const Event there = backend.record();
//   ...                                     // more ops
//   backend.wait(there);
//   use(mirror.numbers());
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "kernels/backend.h"

namespace smoe {

template <class T>
class HostMirror {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int32_t> || std::is_same_v<T, double>);
  static constexpr DType type = std::is_same_v<T, float>          ? DType::f32
                                : std::is_same_v<T, std::int32_t> ? DType::i32
                                                                  : DType::f64;

 public:
  HostMirror() = default;
  ~HostMirror() { release(); }
  HostMirror(HostMirror&& other) noexcept { *this = std::move(other); }
  HostMirror& operator=(HostMirror&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  std::span<T> numbers() { return {data_, size_}; }
  std::span<const T> numbers() const { return {data_, size_}; }

  // Room for `count` numbers that the host will write; what was there is lost where more room is needed. The backend
  // outlives the mirror.
  void resize(Backend& backend, std::int64_t count) {
    size_ = static_cast<std::size_t>(count);
    if (size_ <= capacity_ && &backend == backend_) return;
    release();
    data_ = static_cast<T*>(backend.allocate_host(size_ * sizeof(T)));
    capacity_ = size_;
    backend_ = &backend;
  }

  // numbers() become those of `from`, which holds T, once an event recorded after this call has been waited for.
  void start_fetch(Backend& backend, const Tensor& from) {
    from.expect(type);
    resize(backend, from.elements());
    backend.start_copy_to_host(data_, from);
  }

 private:
  void release() {
    if (backend_ != nullptr)
      backend_->release_host(std::exchange(data_, nullptr), std::exchange(capacity_, 0) * sizeof(T));
    backend_ = nullptr;
  }

  Backend* backend_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace smoe
