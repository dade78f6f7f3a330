#include "launch/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "configs/config_error.h"
#include "data/files/sha256.h"
#include "launch/command_line.h"
#include "kernels/cuda_device.h"
#include "parallel/comm/agreement.h"
#include "parallel/comm/transport.h"
#include "parallel/cores.h"

namespace smoe {
namespace {

// The first bytes of a SHA-256, as numbers that ranks can exchange.
std::array<std::int32_t, 4> digest(const std::string& hex) {
  std::array<std::int32_t, 4> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<std::int32_t>(std::stoul(hex.substr(8 * i, 8), nullptr, 16));
  return numbers;
}

// What to type where the processes that were started cannot be joined.
std::string way_out(const Launcher& launcher) {
  const std::string found = fmt::format("{} started {} processes, which Open MPI cannot bring together: type ",
                                        launcher.name, launcher.ranks);
  if (launcher.name == "srun")
    return found +
           fmt::format(
               "mpirun -n {0} smoe train ... inside the allocation (of salloc, or sbatch launch/train.slurm), or srun --mpi=pmix -n {0} "
               "smoe train ... where Slurm speaks PMIx",
               launcher.ranks);
  if (launcher.name == "flux run")
    return found + fmt::format("mpirun -n {0} smoe train ... inside flux alloc -n {0}", launcher.ranks);
  return found + fmt::format("mpirun -n {} smoe train ..., with Open MPI's own mpirun", launcher.ranks);
}

}  // namespace

int status_of(const std::exception& error) {
  const bool usage = dynamic_cast<const UsageError*>(&error) || dynamic_cast<const ConfigError*>(&error);
  return usage ? 2 : 1;
}

void Job::be_shared() {
  if (!launcher_.joinable) throw UsageError(way_out(launcher_));
  shared_ = true;
}

void Job::be_alone(const std::string& command, const std::string& advice) const {
  if (!launcher_.several()) return;
  const std::string found = launcher_.ranks > 0 ? std::to_string(launcher_.ranks) : "several";
  throw UsageError(fmt::format("'{}' runs in one process, found {}: start it without {}{}{}", command, found,
                               launcher_.name, launcher_.name == "srun" ? ", or with srun -n 1" : "", advice));
}

MpiSession* Job::session() {
  if (launcher_.alone()) return nullptr;
  if (!session_) {
    session_.emplace(nullptr, nullptr);
    node_.ranks = session_->local_size();
    node_.rank = session_->local_rank();
    if (launcher_.ranks != 0 && session_->size() != launcher_.ranks)
      throw std::runtime_error(fmt::format(
          "{} started {} processes, MPI brings together {}: start them with the mpirun of the Open MPI that smoe is "
          "linked with",
          launcher_.name, launcher_.ranks, session_->size()));
  }
  return &*session_;
}

Communicator& Job::world() {
  if (!everyone_) everyone_ = mesh_of({.ranks = ranks()}, {});
  return everyone_->group(Axis::world);
}

void Job::claim_device(DeviceChoice choice) {
  if (choice != DeviceChoice::cpu && session()) use_cuda_device(node_.rank);
}

int Job::ranks_sharing_memory(Device device) {
  if (device == Device::cpu) return ranks_on_node();
  return ranks_on_own_gpu_ ? *ranks_on_own_gpu_ : ranks_on_own_gpu(world());
}

void Job::slice(int slices, std::int64_t threads, DeviceChoice device) {
  claim_threads(threads);
  claim_device(device);
  if (device_of(device) == Device::cuda) ranks_on_own_gpu_ = ranks_on_own_gpu(world());
  everyone_.reset();
  session_->slice(slices);
}

void Job::rejoin() {
  everyone_.reset();
  session_->rejoin();
  ranks_on_own_gpu_.reset();
}

void Job::set_timeout(double seconds) {
  if (session()) session()->set_timeout(seconds);
}

void Job::agree(std::string_view label, const std::function<void()>& work) {
  together(world(), label, work, status_of);
}

void Job::require_same_everywhere(const std::string& configuration) {
  if (ranks() == 1) return;
  std::array<std::int32_t, 8> own{};
  agree("launch.digest", [&] {
    const auto binary = digest(sha256_file("/proc/self/exe")), config = digest(sha256_hex(configuration));
    std::copy(binary.begin(), binary.end(), own.begin());
    std::copy(config.begin(), config.end(), own.begin() + 4);
  });
  std::vector<std::int32_t> all(own.size() * static_cast<std::size_t>(ranks()));
  world().all_gather(host_tensor(own), host_tensor(all), "launch.digests");
  agree("launch.same", [&] {
    if (!std::equal(own.begin(), own.begin() + 4, all.begin()))
      throw UsageError("this rank runs another smoe binary than rank 0: install the same one on every node");
    if (!std::equal(own.begin() + 4, own.end(), all.begin() + 4))
      throw UsageError(
          "this rank was given another configuration than rank 0, or other options (compare smoe train ... --print-config on both nodes)");
  });
}

int Job::claim_threads(std::int64_t wanted) {
  const auto known = threads_.find(wanted);
  if (known != threads_.end()) return known->second;
  NodePlace place = node_;
  if (session()) place.on_cores = count_ranks_on_own_cores(world());
  return threads_[wanted] = smoe::claim_threads(wanted, place);
}

}  // namespace smoe
