// A queue of a device beside that of a backend's ops, for the collectives of a communicator, which a library of its own puts
// there. The two queues wait for each other by what is said here, and the host for neither.
#pragma once

#include <cstdint>

#include "kernels/stamp.h"

namespace smoe {

class CommunicationStream {
 public:
  virtual ~CommunicationStream() = default;

  virtual void* native() const = 0;  // a cudaStream_t

  // What is queued here from now on runs behind all ops that were called before.
  virtual void follow_ops() = 0;
  // A point behind all that is queued here. Of the last `points_kept` each is kept as it is; an earlier one is taken for a
  // later one, which is longer than it need be and never too short.
  static constexpr std::uint64_t points_kept = 1024;
  virtual std::uint64_t mark() = 0;
  // Ops called from now on run behind that point.
  virtual void lead_ops(std::uint64_t point) = 0;
  // Whether the device has come by it. From any thread.
  virtual bool is_past(std::uint64_t point) = 0;
  // The moment at which what is queued here is done; Backend::seconds_between() reads it.
  virtual Stamp stamp() = 0;
};

// A backend has two, so that what ops wait for at once is not queued behind what may take its time.
enum class Lane : std::uint8_t {
  foreground,  // activations: the next op reads them
  background,  // gradients and weights, while ops go on
};

}  // namespace smoe
