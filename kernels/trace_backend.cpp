#include "kernels/trace_backend.h"

#include <cmath>
#include <exception>

namespace smoe {

// Passes the arguments on as they are, and notes them.
class TraceBackend::Noting final : public OpDecorator::Placing {
 public:
  explicit Noting(std::vector<TracedArgument>& arguments) : arguments_(arguments) {}

 private:
  Tensor place(const char* name, const Tensor& tensor, Access) const override {
    if (!tensor.empty()) arguments_.push_back({name, tensor.shape(), tensor.type()});
    return tensor;
  }

  std::vector<TracedArgument>& arguments_;
};

void TraceBackend::start() {
  ops_.clear();
  arguments_.clear();
  ranges_.clear();
  open_.clear();
  waits_.clear();
  inner().synchronize();
  inner().forget_stamps();
  // The device has nothing else to do, so it comes by the stamp between these two readings.
  const std::int64_t before = host_nanoseconds();
  zero_stamp_ = inner().stamp();
  inner().synchronize();
  zero_ = before + (host_nanoseconds() - before) / 2;
  recording_ = true;
}

void TraceBackend::stop() {
  recording_ = false;
  inner().synchronize();
}

std::int64_t TraceBackend::nanoseconds_between(Stamp from, Stamp to) {
  return std::llround(1e9 * inner().seconds_between(from, to));
}

void TraceBackend::run(const char* op, const Call& call) {
  if (!recording_) return call(inner(), Placing());
  TracedOp traced{op, {}, {}, {host_nanoseconds(), 0}, arguments_.size(), 0};
  traced.begin = inner().stamp();
  call(inner(), Noting(arguments_));
  traced.end = inner().stamp();
  traced.call.end = host_nanoseconds();
  traced.arguments = arguments_.size() - traced.first_argument;
  ops_.push_back(traced);
}

void TraceBackend::wait(Event event) {
  const std::int64_t begin = host_nanoseconds();
  inner().wait(event);
  if (recording_) waits_.push_back({"wait", {begin, host_nanoseconds()}});
}

void TraceBackend::synchronize() {
  const std::int64_t begin = host_nanoseconds();
  inner().synchronize();
  if (recording_) waits_.push_back({"synchronize", {begin, host_nanoseconds()}});
}

// A profiler that watches the other backend is told as well.
void TraceBackend::begin_range(const char* name, int number) {
  inner().begin_range(name, number);
  if (!recording_) return;
  open_.push_back(ranges_.size());
  const std::int64_t now = host_nanoseconds();
  const Stamp begin = inner().stamp();
  ranges_.push_back({name, number, begin, begin, {now, now}});
}

void TraceBackend::end_range() noexcept {
  inner().end_range();
  if (!recording_ || open_.empty()) return;  // one that began before
  TracedRange& range = ranges_[open_.back()];
  open_.pop_back();
  try {
    range.end = inner().stamp();
  } catch (const std::exception&) {  // the device is in trouble: the next call says so
  }
  range.host.end = host_nanoseconds();
}

}  // namespace smoe
