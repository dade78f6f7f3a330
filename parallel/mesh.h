// The ranks of a job, factored twice: dense work (attention, embedding, head) over dp x tp, expert work over edp x ep.
//   world = dp * tp = edp * ep
// Groups are handed out by axis name. A mesh is passed by reference; there is no global one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace smoe {

enum class Axis : std::uint8_t {
  world,  // every rank
  dp,     // ranks with the same tensor-parallel slice and different sequences
  tp,     // ranks that share sequences and split heads, hidden columns, vocabulary
  edp,    // ranks that hold the same experts
  ep,     // ranks that hold different experts and exchange rows
};

class Mesh {
 public:
  // The layout of a single rank: every axis has size 1.
  static Mesh single();

  Communicator& group(Axis axis) const { return *groups_[static_cast<std::size_t>(axis)]; }
  int size(Axis axis) const { return group(axis).size(); }
  int rank(Axis axis) const { return group(axis).rank(); }
  bool is_root() const { return rank(Axis::world) == 0; }

 private:
  std::array<std::shared_ptr<Communicator>, 5> groups_;
};

}  // namespace smoe
