#include "kernels/cuda/communication.h"

#include "kernels/cuda/error.h"

namespace smoe::cuda {

LaneStream::LaneStream(const Stream& ops, Stamps& stamps, Lane lane) : ops_(ops), stamps_(stamps) {
  int least = 0, greatest = 0;  // the greatest priority is the smaller number
  cudaStream_t stream = nullptr;
  check("the device", cudaGetDevice(&device_));
  check("a stream", cudaDeviceGetStreamPriorityRange(&least, &greatest));
  check("a stream",
        cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, lane == Lane::foreground ? greatest : least));
  stream_.reset(stream);
  called_ = make_event();
  for (OwnedEvent& point : points_) point = make_event();
}

LaneStream::~LaneStream() { cudaStreamSynchronize(stream_.get()); }

void LaneStream::follow_ops() {
  check("a collective behind the ops", cudaEventRecord(called_.get(), ops_));
  check("a collective behind the ops", cudaStreamWaitEvent(stream_.get(), called_.get(), 0));
}

std::uint64_t LaneStream::mark() {
  ++last_;
  check("a collective", cudaEventRecord(points_[last_ % points_kept].get(), stream_.get()));
  return last_;
}

void LaneStream::lead_ops(std::uint64_t point) {
  check("ops behind a collective", cudaStreamWaitEvent(ops_, points_[point % points_kept].get(), 0));
}

bool LaneStream::is_past(std::uint64_t point) {
  check("the device", cudaSetDevice(device_));  // of this thread, which may be another
  const cudaError_t code = cudaEventQuery(points_[point % points_kept].get());
  if (code == cudaErrorNotReady) return false;
  check("a collective", code);
  return true;
}

}  // namespace smoe::cuda
