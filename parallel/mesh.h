// The ranks of a job and their groups, handed out by axis name (layout.h says who is where). A mesh is passed by
// reference; there is no global one.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "parallel/comm/communicator.h"
#include "parallel/layout.h"
#include "parallel/comm/mpi_session.h"
#include "parallel/comm/traffic.h"
#include "parallel/comm/transport.h"

namespace smoe {

enum class Axis : std::uint8_t {
  world,  // every rank
  dp,     // ranks with the same tensor-parallel slice and different sequences
  tp,     // ranks that share sequences and split heads, hidden columns, vocabulary
  edp,    // ranks that hold the same experts
  ep,     // ranks that hold different experts and exchange rows
};
inline constexpr std::array all_axes = {Axis::world, Axis::dp, Axis::tp, Axis::edp, Axis::ep};
const char* name_of(Axis axis);

class Mesh {
 public:
  // The layout of a single rank: every axis has size 1.
  static Mesh single();
  // The first layout.ranks ranks of the session's slice; all of them call this, and no other rank does. Throws std::logic_error for
  // a layout that does not divide, or more ranks than there are.
  // Where the ranks compute on GPUs, each on its own by now (use_cuda_device), they are joined here: std::runtime_error where they
  // cannot be, as wanted.
  struct Devices {
    Device kind = Device::cpu;
    Transport transport = Transport::automatic;
  };
  static Mesh over(MpiSession& session, const Layout& layout, const Devices& devices);
  static Mesh over(MpiSession& session, const Layout& layout) { return over(session, layout, Devices()); }

  // The place of one rank of a layout without the others: what it would hold can be asked, collectives throw.
  static Mesh placed(const Layout& layout, int rank);

  const Layout& layout() const { return layout_; }
  MpiSession* session() const { return session_; }  // null for a single rank's
  Communicator& group(Axis axis) const { return *groups_[static_cast<std::size_t>(axis)]; }
  int size(Axis axis) const { return group(axis).size(); }
  int rank(Axis axis) const { return group(axis).rank(); }
  bool is_root() const { return rank(Axis::world) == 0; }

  // Tells every group whose tensors it is about to be given, until the backend ends (Communicator::use).
  void use(Backend& backend) const {
    for (const auto& group : groups_) group->use(backend);
  }
  void leave(Backend& backend) const noexcept {
    for (const auto& group : groups_) group->leave(backend);
  }

  // By what the tensors of GPUs are moved, in words; "" where there is one rank, or no GPU in use.
  const std::string& transport() const { return transport_.why; }
  // What has failed on this rank alone, where NCCL joins the ranks, ends the job here and now, with its message: on the way out
  // this rank would wait for collectives that the others never come to. Elsewhere, and for a SharedFailure, returns.
  void end_job_of_one(const std::exception& failure) const;

  // Bytes this rank has sent through any of the groups.
  Traffic& traffic() const { return *traffic_; }

  // Puts another communicator in an axis's place: how a test plants a fault and sees it found.
  void replace(Axis axis, std::shared_ptr<Communicator> group) {
    groups_[static_cast<std::size_t>(axis)] = std::move(group);
  }
  std::shared_ptr<Communicator> share(Axis axis) const { return groups_[static_cast<std::size_t>(axis)]; }

 private:
  Layout layout_;
  MpiSession* session_ = nullptr;
  std::shared_ptr<Traffic> traffic_ = std::make_shared<Traffic>();  // the groups write into it
  std::array<std::shared_ptr<Communicator>, all_axes.size()> groups_;
  Choice transport_;
};

}  // namespace smoe
