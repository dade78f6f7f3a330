// The ranks that were started together, before there is a layout: what fails on one of them is told once and ends all.
#pragma once

#include <exception>
#include <functional>
#include <string_view>

#include "parallel/mesh.h"
#include "parallel/mpi_session.h"

namespace smoe {

// 2 for wrong usage or configuration, 1 for anything else.
int status_of(const std::exception& error);

class Job {
 public:
  explicit Job(MpiSession& session) : session_(session), everyone_(Mesh::over(session, {.ranks = session.size()})) {}

  MpiSession& session() { return session_; }
  Communicator& world() { return everyone_.group(Axis::world); }
  int ranks() const { return session_.size(); }
  bool is_root() const { return session_.rank() == 0; }

  // Calls work() on all ranks and goes on when it has succeeded on all (parallel/agreement.h).
  void agree(std::string_view label, const std::function<void()>& work);

  // Throws, on the ranks concerned, if this rank runs another binary or another configuration than rank 0.
  void require_same_everywhere(const std::string& configuration);

  // Threads for one rank: `wanted`, or else the node's cores divided by its ranks. mpirun may have bound the process to
  // fewer cores than that (two ranks get one each, however many there are): then it takes its share of them back.
  int claim_threads(std::int64_t wanted);

 private:
  MpiSession& session_;
  Mesh everyone_;
};

}  // namespace smoe
