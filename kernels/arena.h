// Bump allocation: a step takes its tensors one after another and gives them all back by rewinding to a mark.
// Three arenas live in a run: persistent (weights, moments), activations, scratch. Once a step has been seen whole, the
// arena is one block as large as the step needs, and later steps allocate nothing.
#pragma once

#include <cstddef>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda_device.h"

namespace smoe {

// What take() throws where the backend has no more. One line, with what was asked for and what there is.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  // wanted at once; held by the arena already; of the GPU, where it is its memory that is out.
  OutOfMemory(std::size_t wanted_bytes, std::size_t held_bytes, const DeviceMemory& of_gpu = {});
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

class Arena {
 public:
  struct Mark {
    std::size_t block = 0, used = 0;
  };

  Arena(Backend& backend, std::size_t first_block_bytes = 0);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised memory, aligned to memory_alignment. A tensor of zero elements is still not empty().
  Tensor take(DType type, Shape shape);
  Tensor take(Shape shape) { return take(DType::f32, shape); }
  Tensor take_like(const Tensor& other) { return take(other.type(), other.shape()); }

  Mark mark() const { return {current_, blocks_.empty() ? 0 : blocks_[current_].used}; }
  // Everything taken since the mark is free again, also where ops that use it have yet to run on a device: what takes it
  // next runs behind them (backend.h: order). At the start of the arena, several blocks become one.
  void rewind(Mark mark);

  std::size_t high_water_bytes() const { return high_water_; }  // most ever in use at once
  std::size_t reserved_bytes() const;                           // held from the backend

 private:
  struct Block {
    void* data;
    std::size_t capacity, used;
  };
  void grow(std::size_t bytes);
  void release_all();

  Backend& backend_;
  std::vector<Block> blocks_;
  std::size_t current_ = 0;
  std::size_t before_current_ = 0;  // bytes used in the blocks before the current one
  std::size_t high_water_ = 0;
};

// Gives back on leaving a scope what was taken inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace smoe
