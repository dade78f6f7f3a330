#include "trainer/same_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <vector>

#include "parallel/comm/agreement.h"
#include "parallel/comm/rank_ranges.h"

namespace smoe {
namespace {

// Of what is found on each rank, those with that.
std::string ranks_with(const std::vector<double>& found, double what) {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < found.size(); ++rank)
    if (found[rank] == what) ranks.push_back(static_cast<int>(rank));
  return ranges_of(ranks);
}

}  // namespace

void require_same_device(Communicator& world, Device own, const std::string& missing) {
  std::vector<double> on_gpu(static_cast<std::size_t>(world.size()));
  on_gpu[static_cast<std::size_t>(world.rank())] = own == Device::cuda;
  world.all_reduce(std::span(on_gpu), Reduce::sum, "device.found");
  const auto without = std::find(on_gpu.begin(), on_gpu.end(), 0.0);
  if (without == on_gpu.end() || std::find(on_gpu.begin(), on_gpu.end(), 1.0) == on_gpu.end()) return;
  const auto first = static_cast<int>(without - on_gpu.begin());
  const std::string why = broadcast_text(world, missing, first, "device.missing");
  together(world, "device.same", [&] {
    throw std::runtime_error(fmt::format(
        "train.device: auto finds a GPU on rank(s) {} and none on rank(s) {} (rank {}: {}); expected the same of all: name "
        "train.device: cpu, or start ranks only where a GPU is",
        ranks_with(on_gpu, 1), ranks_with(on_gpu, 0), first, why));
  });
}

}  // namespace smoe
