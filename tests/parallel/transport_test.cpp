// By what GPUs are joined, from what the ranks say of themselves.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/comm/transport.h"

namespace smoe {
namespace {

std::vector<DeviceRank> ranks_with_a_gpu_each(int count) {
  std::vector<DeviceRank> ranks;
  for (int r = 0; r < count; ++r)
    ranks.push_back({.gpu = {7, 7, 7, r}, .nccl_version = 22809, .driver_version = 13000, .may_share_gpu = 0});
  return ranks;
}

std::string refusal(Transport wanted, const std::vector<DeviceRank>& ranks) {
  try {
    choose_transport(wanted, ranks, "why");
    return "chosen";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

TEST(Transport, IsNcclWhereEachRankHasAGpuOfItsOwn) {
  const Choice choice = choose_transport(Transport::automatic, ranks_with_a_gpu_each(4), "");
  EXPECT_EQ(choice.transport, Transport::nccl);
  EXPECT_EQ(choice.why, "NCCL 2.28.9");
  EXPECT_EQ(choose_transport(Transport::nccl, ranks_with_a_gpu_each(4), "").transport, Transport::nccl);
  EXPECT_EQ(choose_transport(Transport::mpi, ranks_with_a_gpu_each(4), "").transport, Transport::mpi);
}

TEST(Transport, IsMpiWhereRanksShareAGpu) {
  std::vector<DeviceRank> ranks = ranks_with_a_gpu_each(4);
  ranks[3].gpu = ranks[1].gpu;
  const Choice choice = choose_transport(Transport::automatic, ranks, "why");
  EXPECT_EQ(choice.transport, Transport::mpi);
  EXPECT_EQ(choice.why, "MPI, through the host: ranks 1 and 3 have one GPU between them");
  EXPECT_EQ(
      refusal(Transport::nccl, ranks),
      "parallel.transport: found nccl, and ranks 1 and 3 have one GPU between them; expected a GPU for each rank: start "
      "fewer, or more GPUs (mpirun --map-by ppr:N:node, CUDA_VISIBLE_DEVICES), or say auto or mpi");
  // A library that takes several ranks on one GPU, and is told to.
  for (const int rank : {1, 3}) ranks[static_cast<std::size_t>(rank)].may_share_gpu = 1;
  EXPECT_EQ(choose_transport(Transport::automatic, ranks, "why").transport, Transport::nccl);
  ranks[3].may_share_gpu = 0;
  EXPECT_EQ(choose_transport(Transport::automatic, ranks, "why").transport, Transport::mpi);
}

TEST(Transport, IsMpiWhereARankHasNoNccl) {
  std::vector<DeviceRank> ranks = ranks_with_a_gpu_each(3);
  ranks[2].nccl_version = 0;
  EXPECT_EQ(choose_transport(Transport::automatic, ranks, "why").why,
            "MPI, through the host: rank 2 has no NCCL (why)");
  EXPECT_EQ(refusal(Transport::nccl, ranks),
            "parallel.transport: found nccl, and rank 2 has none (why); expected NCCL on all ranks, or auto or mpi");
}

TEST(Transport, OfOtherVersionsIsRefusedWithWhoHasWhich) {
  std::vector<DeviceRank> ranks = ranks_with_a_gpu_each(5);
  ranks[2].nccl_version = 22705;
  EXPECT_EQ(
      refusal(Transport::automatic, ranks),
      "the ranks have different versions of NCCL: 2.27.5 on rank(s) 2, 2.28.9 on rank(s) 0-1, 3-4; expected one version "
      "on all, or parallel.transport: mpi");
  EXPECT_EQ(refusal(Transport::mpi, ranks), "chosen");
  ranks = ranks_with_a_gpu_each(2);
  ranks[1].driver_version = 12080;
  EXPECT_EQ(
      refusal(Transport::nccl, ranks),
      "the ranks have different versions of the NVIDIA driver: CUDA 12.8 on rank(s) 1, CUDA 13.0 on rank(s) 0; expected "
      "one version on all, or parallel.transport: mpi");
}

}  // namespace
}  // namespace smoe
