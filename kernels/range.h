// A part of a training step, by name, from here to the end of the scope: a layer and its number, attention, the optimizer. On a GPU
// that a profiler watches it is what the timeline is divided by; elsewhere it is a call of an empty function.
#pragma once

#include "kernels/backend.h"

namespace smoe {

class Range {
 public:
  // name: a literal, or what lives as long as the backend.
  Range(Backend& backend, const char* name, int number = -1) : backend_(backend) { backend_.begin_range(name, number); }
  ~Range() { backend_.end_range(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Backend& backend_;
};

}  // namespace smoe
