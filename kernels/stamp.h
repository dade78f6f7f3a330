// When something was done, for a timeline: of a device, which works behind the host, and of the host.
#pragma once

#include <chrono>
#include <cstdint>

namespace smoe {

// A moment of a backend's work: what was called before Backend::stamp() is done, and nothing that is called after it has begun.
struct Stamp {
  std::uint64_t number = 0;
};

// Nanoseconds of the steady clock, which the processes of a machine have in common.
inline std::int64_t host_nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace smoe
