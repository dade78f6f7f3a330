#include "kernels/cuda/communication.h"

#include "kernels/cuda/error.h"

namespace smoe::cuda {

LaneStream::LaneStream(const Stream& ops, Lane lane) : ops_(ops) {
  int least = 0, greatest = 0;  // the greatest priority is the smaller number
  check("the device", cudaGetDevice(&device_));
  check("a stream", cudaDeviceGetStreamPriorityRange(&least, &greatest));
  check("a stream",
        cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, lane == Lane::foreground ? greatest : least));
  check("an event", cudaEventCreateWithFlags(&called_, cudaEventDisableTiming));
  for (cudaEvent_t& point : points_) check("an event", cudaEventCreateWithFlags(&point, cudaEventDisableTiming));
}

LaneStream::~LaneStream() {
  cudaStreamSynchronize(stream_);
  for (const cudaEvent_t point : points_) cudaEventDestroy(point);
  cudaEventDestroy(called_);
  cudaStreamDestroy(stream_);
}

void LaneStream::follow_ops() {
  check("a collective behind the ops", cudaEventRecord(called_, ops_));
  check("a collective behind the ops", cudaStreamWaitEvent(stream_, called_, 0));
}

std::uint64_t LaneStream::mark() {
  ++last_;
  check("a collective", cudaEventRecord(points_[last_ % points_kept], stream_));
  return last_;
}

void LaneStream::lead_ops(std::uint64_t point) {
  check("ops behind a collective", cudaStreamWaitEvent(ops_, points_[point % points_kept], 0));
}

bool LaneStream::is_past(std::uint64_t point) {
  check("the device", cudaSetDevice(device_));  // of this thread, which may be another
  const cudaError_t code = cudaEventQuery(points_[point % points_kept]);
  if (code == cudaErrorNotReady) return false;
  check("a collective", code);
  return true;
}

}  // namespace smoe::cuda
