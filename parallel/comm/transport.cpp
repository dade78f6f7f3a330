#include "parallel/comm/transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string_view>

#include "kernels/cuda_device.h"
#include "kernels/nccl.h"
#include "parallel/comm/agreement.h"
#include "parallel/comm/rank_ranges.h"

namespace smoe {
namespace {

static_assert(sizeof(DeviceRank) % sizeof(std::int32_t) == 0);
constexpr std::size_t numbers_of_a_rank = sizeof(DeviceRank) / sizeof(std::int32_t);

std::string nccl_version(int number) {
  return number == 0 ? "none" : fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}
std::string cuda_version(int number) { return fmt::format("CUDA {}.{}", number / 1000, number % 1000 / 10); }

// "2.28.9 on rank(s) 0-2, 2.27.5 on rank(s) 3"; one entry where all have the same.
template <class Of, class Text>
std::vector<std::string> by_rank(const std::vector<DeviceRank>& group, const Of& of, const Text& text) {
  std::map<std::int32_t, std::vector<int>> ranks;
  for (std::size_t r = 0; r < group.size(); ++r) ranks[of(group[r])].push_back(static_cast<int>(r));
  std::vector<std::string> lines;
  for (const auto& [value, of_value] : ranks)
    lines.push_back(fmt::format("{} on rank(s) {}", text(value), ranges_of(of_value)));
  return lines;
}

bool is_without_nccl(const DeviceRank& rank) { return rank.nccl_version == 0; }

void require_one(const char* what, const std::vector<std::string>& found) {
  if (found.size() <= 1) return;
  throw std::runtime_error(fmt::format(
      "the ranks have different versions of {}: {}; expected one version on all, or parallel.transport: mpi", what,
      fmt::join(found, ", ")));
}

}  // namespace

DeviceRank own_device_rank() {
  const CudaDevice device = cuda_device();
  DeviceRank own;
  static_assert(sizeof own.gpu == sizeof device.uuid);
  std::memcpy(own.gpu.data(), device.uuid.data(), sizeof own.gpu);
  own.driver_version = device.driver_version;
  own.nccl_version = nccl_missing().empty() ? NcclGroup::version() : 0;
  const char* const shared = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  own.may_share_gpu = own.nccl_version >= 23000 && shared && std::string_view(shared) == "1";
  return own;
}

Choice choose_transport(Transport wanted, const std::vector<DeviceRank>& group, const std::string& missing) {
  if (wanted == Transport::mpi) return {Transport::mpi, "MPI, through the host, as parallel.transport says"};
  if (const auto without = std::find_if(group.begin(), group.end(), is_without_nccl); without != group.end()) {
    const auto rank = without - group.begin();
    if (wanted == Transport::nccl)
      throw std::runtime_error(fmt::format(
          "parallel.transport: found nccl, and rank {} has none ({}); expected NCCL on all ranks, or auto or mpi", rank,
          missing));
    return {Transport::mpi, fmt::format("MPI, through the host: rank {} has no NCCL ({})", rank, missing)};
  }
  require_one("NCCL", by_rank(
                          group, [](const DeviceRank& r) { return r.nccl_version; }, nccl_version));
  require_one("the NVIDIA driver", by_rank(
                                       group, [](const DeviceRank& r) { return r.driver_version; }, cuda_version));

  for (std::size_t a = 0; a < group.size(); ++a)
    for (std::size_t b = a + 1; b < group.size(); ++b) {
      if (group[a].gpu != group[b].gpu || (group[a].may_share_gpu && group[b].may_share_gpu)) continue;
      const std::string found = fmt::format("ranks {} and {} have one GPU between them", a, b);
      if (wanted == Transport::nccl)
        throw std::runtime_error(fmt::format(
            "parallel.transport: found nccl, and {}; expected a GPU for each rank: start fewer, or more GPUs (mpirun "
            "--map-by ppr:N:node, CUDA_VISIBLE_DEVICES), or say auto or mpi",
            found));
      return {Transport::mpi, fmt::format("MPI, through the host: {}", found)};
    }
  return {Transport::nccl, fmt::format("NCCL {}", nccl_version(group[0].nccl_version))};
}

namespace {

std::vector<DeviceRank> all_device_ranks(Communicator& host) {
  std::vector<DeviceRank> group(static_cast<std::size_t>(host.size()));
  const DeviceRank own = own_device_rank();
  std::vector<std::int32_t> mine(numbers_of_a_rank), all(numbers_of_a_rank * group.size());
  std::memcpy(mine.data(), &own, sizeof own);
  host.all_gather(host_tensor(mine), host_tensor(all), "transport.ranks");
  std::memcpy(static_cast<void*>(group.data()), all.data(), sizeof own * group.size());
  return group;
}

}  // namespace

Choice choose_transport(Transport wanted, Communicator& world) {
  const std::vector<DeviceRank> ranks = all_device_ranks(world);
  std::string missing;
  if (const auto without = std::find_if(ranks.begin(), ranks.end(), is_without_nccl); without != ranks.end())
    missing = broadcast_text(world, nccl_missing(), static_cast<int>(without - ranks.begin()), "transport.missing");
  return choose_transport(wanted, ranks, missing);
}

int ranks_on_own_gpu(Communicator& host) {
  const std::vector<DeviceRank> group = all_device_ranks(host);
  const DeviceRank& own = group[static_cast<std::size_t>(host.rank())];
  return static_cast<int>(
      std::count_if(group.begin(), group.end(), [&](const DeviceRank& other) { return other.gpu == own.gpu; }));
}

}  // namespace smoe
