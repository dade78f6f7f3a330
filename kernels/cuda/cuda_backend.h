// The op table on an NVIDIA GPU. One op family a .cu in this folder, forward and backward adjacent. What the ops compute is said
// in kernels/backend.h; how they are made, in this folder's README.
//
// One caller at a time. Ops return when they are queued; only copy_to_host(), wait() and synchronize() wait, and say
// what went wrong before.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/communication.h"
#include "kernels/cuda/complaint.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/sdpa.h"

namespace smoe {

class CudaBackend final : public Backend {
 public:
  CudaBackend();

  Device device() const override { return Device::cuda; }
  DeviceProfile measure_profile() override;

  void* allocate(std::size_t bytes) override;
  void release(void* data, std::size_t bytes) noexcept override;
  void* allocate_host(std::size_t bytes) override;
  void release_host(void* data, std::size_t bytes) noexcept override;
  Event record() override;
  void wait(Event event) override;
  void synchronize() override;
  Stamp stamp() override;
  double seconds_between(Stamp from, Stamp to) override;
  void forget_stamps() override;
  CommunicationStream* communication(Lane lane) override;

 private:
  double do_measure_memory_rate(const Tensor& room) override;
#include "kernels/op_overrides.inc"

  void sum_of(const char* op, const Tensor& x, const Tensor& out, bool squares);
  void rotate(const char* op, const Tensor& x, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table,
              float direction);

  int multiprocessors_ = 1;
  std::int64_t most_shared_bytes_ = 0;  // of a block
  cuda::Stream stream_;
  cuda::Events events_{stream_};
  cuda::Stamps stamps_;
  cuda::Workspace workspace_{stream_};  // of the op that is being queued
  cuda::Upload upload_{stream_};
  cuda::Complaints complaints_{stream_};
  cuda::Matrix matrix_{stream_};
  cuda::Sdpa sdpa_{stream_};
  std::array<std::unique_ptr<cuda::LaneStream>, 2> lanes_;  // made when they are wanted
};

}  // namespace smoe
