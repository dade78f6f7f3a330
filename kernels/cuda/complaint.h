// Ids out of range, found where they are read: on the device, which cannot throw. The kernel notes the first it meets and
// goes on without it; the host finds the note when it next waits.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/memory.h"

namespace smoe::cuda {

struct Note {
  const char* op;  // a literal of the host, which the device only passes on
  const char* argument;
  std::int64_t entry;
  std::int32_t id, first, limit;
  int taken, written;  // one thread alone writes a note; it can be read when all of it is there
};

// What a kernel is given with ids. Every id has to lie in [first, limit).
struct IdCheck {
  const char* op;
  const char* argument;
  std::int32_t first, limit;
  Note* note;  // page-locked memory of the host

  __device__ bool operator()(std::int32_t id, std::int64_t entry) const {
    if (id >= first && id < limit) return true;
    if (atomicExch(&note->taken, 1) == 0) {
      note->op = op, note->argument = argument, note->entry = entry;
      note->id = id, note->first = first, note->limit = limit;
      __threadfence_system();
      *static_cast<volatile int*>(&note->written) = 1;
    }
    return false;
  }
};

// The note, and the checks that write it.
class Complaints {
 public:
  explicit Complaints(const Stream& stream);
  ~Complaints();
  Complaints(const Complaints&) = delete;
  Complaints& operator=(const Complaints&) = delete;

  IdCheck ids(const char* op, const char* argument, std::int64_t limit, std::int32_t first = 0) const {
    return {op, argument, first, static_cast<std::int32_t>(limit), note_.get()};
  }
  // After a wait: throws std::logic_error for what was noted before it.
  void report();

 private:
  const Stream& stream_;  // of the kernels that write it
  PageLocked<Note> note_;
};

}  // namespace smoe::cuda
