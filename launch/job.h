// The ranks that were started together, before there is a layout: what fails on one of them is told once and ends all.
//
// MPI is touched only where a launcher started several processes (parallel/comm/launcher.h), and then by the first call here
// that needs the others. A command of one process makes no such call.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "parallel/comm/launcher.h"
#include "kernels/tensor.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "parallel/cores.h"
#include "parallel/comm/mpi_session.h"

namespace smoe {

// 2 for wrong usage or configuration, 1 for anything else.
int status_of(const std::exception& error);

class Job {
 public:
  explicit Job(const Launcher& launcher) : launcher_(launcher) {}

  const Launcher& launcher() const { return launcher_; }
  bool is_root() const { return session_ ? session_->rank() == 0 : launcher_.rank == 0; }  // of the slice

  // Declares the command to be one of all ranks: from here on they agree on what fails. Throws UsageError, with what to
  // type instead, where MPI cannot bring together what was started.
  void be_shared();
  bool is_shared() const { return shared_; }
  // Declares it to be of one process: over several it would do the same work in each, and write the same files. Throws
  // UsageError where there are, without touching MPI. command: its name, and what would make it another.
  void be_alone(const std::string& command, const std::string& advice = {}) const;

  // Those below join the ranks. They throw std::runtime_error where MPI finds others than the launcher said.
  MpiSession* session();  // null where this process is alone
  Communicator& world();
  int ranks() { return session() ? session()->size() : 1; }
  int ranks_on_node() { return session() ? node_.ranks : 1; }
  // The first layout.ranks ranks, by axis (Mesh::over).
  Mesh mesh_of(const Layout& layout, const Mesh::Devices& devices) {
    return session() ? Mesh::over(*session(), layout, devices) : Mesh::single();
  }
  void set_timeout(double seconds);  // MpiSession's

  // From here on this is one of so many jobs beside one another (MpiSession::slice), until all have come to rejoin(). What ranks
  // of a node share, its cores and GPUs, stays shared by all of them, and is divided now for runs with these threads and
  // device.
  void slice(int slices, std::int64_t threads, DeviceChoice device);
  void rejoin();

  // Null where the ranks have not been joined, and where there is one.
  MpiSession* joined() { return session_ ? &*session_ : nullptr; }

  // Calls work() on all ranks and goes on when it has succeeded on all (parallel/comm/agreement.h).
  void agree(std::string_view label, const std::function<void()>& work);

  // Throws, on the ranks concerned, if this rank runs another binary or another configuration than rank 0.
  void require_same_everywhere(const std::string& configuration);

  // Gives this rank a GPU where the choice may be one, those of a node in turn, before anything is asked of it.
  void claim_device(DeviceChoice choice);
  // How many ranks share the memory that tensors lie in. All ranks call it, with one device.
  int ranks_sharing_memory(Device device);

  // Threads for this rank: `wanted`, or else its part of the cores that the ranks of its node may use (parallel/cores.h).
  int claim_threads(std::int64_t wanted);

 private:
  Launcher launcher_;
  bool shared_ = false;
  std::optional<MpiSession> session_;
  std::optional<Mesh> everyone_;
  NodePlace node_;                       // of all ranks, also inside a slice
  std::map<std::int64_t, int> threads_;  // of this rank by what was wanted: cores are divided once
  std::optional<int> ranks_on_own_gpu_;  // as found before there were slices
};

}  // namespace smoe
