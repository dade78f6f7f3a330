// Another backend, and a record of when each op ran: for a timeline of a step. Where a device runs behind the host its own clock
// is read, and nobody waits, so that ops follow each other as they do in training. What they compute is the other backend's,
// bit for bit.
//
// Waits of the host, and ranges (kernels/range.h), are recorded too. Outside start() and stop() nothing is. Once as much was
// recorded as will be again, recording takes nothing from the heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/op_decorator.h"
#include "kernels/stamp.h"

namespace smoe {

// Of the host's clock, in nanoseconds (host_nanoseconds()).
struct HostSpan {
  std::int64_t begin = 0, end = 0;
};

struct TracedArgument {
  const char* name;  // in kernels/backend.h
  Shape shape;
  DType type;
};

struct TracedOp {
  const char* name;  // the function's in kernels/backend.h
  Stamp begin, end;  // where it ran
  HostSpan call;     // from the call to its return
  std::size_t first_argument, arguments;
};

struct TracedRange {
  const char* name;
  int number;  // below 0: none
  Stamp begin, end;
  HostSpan host;
};

struct TracedWait {
  const char* name;  // "wait", "synchronize"
  HostSpan host;
};

class TraceBackend final : public OpDecorator {
 public:
  explicit TraceBackend(std::unique_ptr<Backend> traced) : OpDecorator(*traced), traced_(std::move(traced)) {}

  // Forgets what was recorded, and the stamps of the backend, all of them. Waits for all work before.
  void start();
  void stop();  // waits too, so that what was recorded can be read

  // In the order in which they were called; ranges in that in which they began.
  const std::vector<TracedOp>& ops() const { return ops_; }
  const std::vector<TracedRange>& ranges() const { return ranges_; }
  const std::vector<TracedWait>& waits() const { return waits_; }
  // Of those that were given: an empty tensor is none. Their order is that in which the compiler has them evaluated.
  std::span<const TracedArgument> arguments_of(const TracedOp& op) const {
    return std::span(arguments_).subspan(op.first_argument, op.arguments);
  }
  // The host's clock at a stamp of this backend or of its communication streams. Of a device it is known to the time that the
  // host takes to ask an idle one.
  std::int64_t host_time(Stamp stamp) { return zero_ + nanoseconds_between(zero_stamp_, stamp); }

  void wait(Event event) override;
  void synchronize() override;
  void begin_range(const char* name, int number) override;
  void end_range() noexcept override;

 private:
  class Noting;
  void run(const char* op, const Call& call) override;
  std::int64_t nanoseconds_between(Stamp from, Stamp to);

  std::unique_ptr<Backend> traced_;
  bool recording_ = false;
  Stamp zero_stamp_;
  std::int64_t zero_ = 0;  // of the host's clock, at that stamp
  std::vector<TracedOp> ops_;
  std::vector<TracedArgument> arguments_;
  std::vector<TracedRange> ranges_;
  std::vector<std::size_t> open_;  // of ranges_, the innermost last
  std::vector<TracedWait> waits_;
};

}  // namespace smoe
