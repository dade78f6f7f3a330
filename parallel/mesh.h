// The ranks of a job and their groups, handed out by axis name (layout.h says who is where). A mesh is passed by
// reference; there is no global one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "parallel/comm/communicator.h"
#include "parallel/comm/device_communicator.h"
#include "parallel/layout.h"
#include "parallel/comm/mpi_session.h"
#include "parallel/comm/traffic.h"

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
  // The first layout.ranks ranks of the job; all of them call this, and no other rank does. Throws std::logic_error for
  // a layout that does not divide, or more ranks than there are.
  // transport: of the tensors of GPUs.
  static Mesh over(MpiSession& session, const Layout& layout, Transport transport = Transport::automatic);

  // The place of one rank of a layout without the others: what it would hold can be asked, collectives throw.
  static Mesh placed(const Layout& layout, int rank);

  const Layout& layout() const { return layout_; }
  MpiSession* session() const { return session_; }  // null for a single rank's
  Communicator& group(Axis axis) const { return *groups_[static_cast<std::size_t>(axis)]; }
  int size(Axis axis) const { return group(axis).size(); }
  int rank(Axis axis) const { return group(axis).rank(); }
  bool is_root() const { return rank(Axis::world) == 0; }

  // Tells every group whose tensors it is about to be given, until the backend ends (Communicator::use). All ranks together.
  void use(Backend& backend) const {
    for (const auto& group : groups_) group->use(backend);
  }
  void leave(Backend& backend) const noexcept {
    for (const auto& group : groups_) group->leave(backend);
  }

  // By what a GPU's tensors are moved between all ranks, in words; "" where there is one rank, or no GPU in use.
  std::string transport() const { return world_ ? world_->transport() : std::string(); }

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
  std::shared_ptr<DeviceCommunicator> world_;
};

}  // namespace smoe
