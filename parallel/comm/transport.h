// By what the tensors of GPUs are moved between the ranks of a group: NCCL where each rank has a GPU of its own; else MPI, which
// they reach through the host.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace smoe {

enum class Transport : std::uint8_t { automatic, nccl, mpi };

// What a rank tells the others before they choose.
struct DeviceRank {
  std::array<std::int32_t, 4> gpu{};  // its UUID
  std::int32_t nccl_version = 0;      // 22809: 2.28.9; 0: there is none
  std::int32_t driver_version = 0;    // 13000: for CUDA 13.0
  std::int32_t may_share_gpu = 0;     // NCCL_MULTI_RANK_GPU_ENABLE=1, which NCCL knows from 2.30 on
};
DeviceRank own_device_rank();

struct Choice {
  Transport transport = Transport::mpi;
  std::string why;  // in words: "NCCL 2.28.9, one GPU a rank"
};
// Throws std::runtime_error where the ranks cannot be joined as is wanted: other versions of NCCL or of the driver, and, for nccl,
// none at all or two ranks on one GPU. ranks: of the job, in order. missing: why the first of those without NCCL has none.
Choice choose_transport(Transport wanted, const std::vector<DeviceRank>& ranks, const std::string& missing);

// The same on all ranks of the world, who all call this.
Choice choose_transport(Transport wanted, Communicator& world);

// How many ranks of the group work on the GPU that this one works on. All ranks call it.
int ranks_on_own_gpu(Communicator& host);

}  // namespace smoe
