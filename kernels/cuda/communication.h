// kernels/communication_stream.h by a stream of CUDA and its events.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/communication_stream.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/runtime.h"

namespace smoe::cuda {

class LaneStream final : public CommunicationStream {
 public:
  // ops: the stream of the backend's ops; stamps: the backend's. The foreground's work goes before theirs where the device can choose.
  LaneStream(const Stream& ops, Stamps& stamps, Lane lane);
  ~LaneStream() override;
  LaneStream(const LaneStream&) = delete;
  LaneStream& operator=(const LaneStream&) = delete;

  void* native() const override { return stream_.get(); }
  void follow_ops() override;
  std::uint64_t mark() override;
  void lead_ops(std::uint64_t point) override;
  bool is_past(std::uint64_t point) override;
  Stamp stamp() override { return stamps_.record(stream_.get()); }

 private:
  const Stream& ops_;
  Stamps& stamps_;
  int device_ = 0;
  OwnedStream stream_;
  OwnedEvent called_;  // of the ops' stream
  std::array<OwnedEvent, points_kept> points_;
  std::uint64_t last_ = 0;
};

}  // namespace smoe::cuda
