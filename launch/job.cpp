#include "launch/job.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "configs/config_error.h"
#include "data/sha256.h"
#include "launch/command_line.h"
#include "parallel/agreement.h"

namespace smoe {
namespace {

// The first bytes of a SHA-256, as numbers that ranks can exchange.
std::array<std::int32_t, 4> digest(const std::string& hex) {
  std::array<std::int32_t, 4> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int32_t>(std::stoul(hex.substr(8 * i, 8), nullptr, 16));
  return numbers;
}

std::vector<int> cores_in(const cpu_set_t& set) {
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

}  // namespace

int status_of(const std::exception& error) {
  const bool usage = dynamic_cast<const UsageError*>(&error) || dynamic_cast<const ConfigError*>(&error);
  return usage ? 2 : 1;
}

void Job::agree(std::string_view label, const std::function<void()>& work) { together(world(), label, work, status_of); }

void Job::require_same_everywhere(const std::string& configuration) {
  if (ranks() == 1) return;
  std::array<std::int32_t, 8> own{};
  agree("launch.digest", [&] {
    const auto binary = digest(sha256_file("/proc/self/exe")), config = digest(sha256_hex(configuration));
    std::copy(binary.begin(), binary.end(), own.begin());
    std::copy(config.begin(), config.end(), own.begin() + 4);
  });
  std::vector<std::int32_t> all(own.size() * static_cast<std::size_t>(ranks()));
  world().all_gather(Tensor(own.data(), DType::i32, {8}), Tensor(all.data(), DType::i32, {8 * ranks()}), "launch.digests");
  agree("launch.same", [&] {
    if (!std::equal(own.begin(), own.begin() + 4, all.begin()))
      throw UsageError("this rank runs another smoe binary than rank 0: install the same one on every node");
    if (!std::equal(own.begin() + 4, own.end(), all.begin() + 4))
      throw UsageError("this rank was given another configuration than rank 0, or other options (compare smoe train ... --print-config on both nodes)");
  });
}

int Job::claim_threads(std::int64_t wanted) {
  cpu_set_t bound, all;
  if (::sched_getaffinity(0, sizeof bound, &bound) != 0) return static_cast<int>(std::max<std::int64_t>(1, wanted));
  CPU_ZERO(&all);
  for (int core = 0; core < CPU_SETSIZE; ++core) CPU_SET(core, &all);
  // The system reduces this to what the job may use at all (a container's or a scheduler's share of the node).
  ::sched_setaffinity(0, sizeof all, &all);
  ::sched_getaffinity(0, sizeof all, &all);
  const std::vector<int> cores = cores_in(all);
  const std::size_t local_ranks = static_cast<std::size_t>(session_.local_size()), local_rank = static_cast<std::size_t>(session_.local_rank());
  const std::size_t share = std::max<std::size_t>(1, cores.size() / local_ranks);
  const std::size_t needed = std::max(share, static_cast<std::size_t>(std::max<std::int64_t>(wanted, 0)));
  if (cores_in(bound).size() >= needed) {
    ::sched_setaffinity(0, sizeof bound, &bound);  // whoever bound us so knew better
  } else if (needed == share && local_ranks > 1 && local_ranks <= cores.size()) {
    cpu_set_t own;
    CPU_ZERO(&own);
    for (std::size_t i = 0; i < share; ++i) CPU_SET(cores[local_rank * share + i], &own);
    ::sched_setaffinity(0, sizeof own, &own);
  }
  return wanted > 0 ? static_cast<int>(wanted) : static_cast<int>(share);
}

}  // namespace smoe
