// Memory an op needs for itself: grows to the largest size ever asked for and stays, so a warm op allocates nothing.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace smoe::cpu {

class Workspace {
 public:
  // Uninitialised memory for `count` values of T, 64-byte aligned; whatever was taken before is gone.
  template <class T>
  T* take(std::size_t count) {
    const std::size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      memory_.reset(std::aligned_alloc(64, bytes));
      if (!memory_) throw std::bad_alloc();
      capacity_ = bytes;
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t capacity_ = 0;
};

}  // namespace smoe::cpu
