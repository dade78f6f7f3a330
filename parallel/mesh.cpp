#include "parallel/mesh.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/comm/agreement.h"
#include "parallel/comm/device_communicator.h"
#include "parallel/comm/mpi_communicator.h"
#include "parallel/comm/nccl_communicator.h"

namespace smoe {
namespace {

// The ranks that share this rank's group along an axis, in order.
std::vector<int> members(Axis axis, const Layout& layout, int rank) {
  const auto run = [](int first, int stride, int count) {
    std::vector<int> ranks;
    for (int i = 0; i < count; ++i) ranks.push_back(first + i * stride);
    return ranks;
  };
  switch (axis) {
    case Axis::world: return run(0, 1, layout.ranks);
    case Axis::dp: return run(rank % layout.tp, layout.tp, layout.dp());
    case Axis::tp: return run(rank - rank % layout.tp, 1, layout.tp);
    case Axis::edp: return run(rank % layout.ep, layout.ep, layout.edp());
    case Axis::ep: return run(rank - rank % layout.ep, 1, layout.ep);
  }
  return {};
}

MPI_Comm make_comm(const std::vector<int>& ranks, Axis axis) {
  MPI_Group world, group;
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  MPI_Group_incl(world, static_cast<int>(ranks.size()), ranks.data(), &group);
  MPI_Comm comm = MPI_COMM_NULL;
  const int code = MPI_Comm_create_group(MPI_COMM_WORLD, group, static_cast<int>(axis), &comm);
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  if (code != MPI_SUCCESS)
    throw std::runtime_error(std::string("MPI could not make the group of axis ") + name_of(axis));
  return comm;
}

}  // namespace

const char* name_of(Axis axis) {
  switch (axis) {
    case Axis::world: return "world";
    case Axis::dp: return "dp";
    case Axis::tp: return "tp";
    case Axis::edp: return "edp";
    case Axis::ep: return "ep";
  }
  return "?";
}

Mesh Mesh::single() {
  Mesh mesh;
  std::shared_ptr<Communicator> self = make_self_communicator();
  mesh.groups_.fill(self);
  return mesh;
}

Mesh Mesh::over(MpiSession& session, const Layout& layout, const Devices& devices) {
  if (!layout.divides() || layout.ranks > session.size() || session.rank() >= layout.ranks)
    throw std::logic_error("no mesh of " + layout.to_string() + " for rank " + std::to_string(session.rank()) + " of " +
                           std::to_string(session.size()));
  Mesh mesh = single();
  mesh.layout_ = layout;
  mesh.session_ = &session;
  // Groups of the same ranks in the same lane share one of NCCL's, which takes memory of the GPU.
  struct Joined {
    std::vector<int> ranks;
    Lane lane;
    std::shared_ptr<NcclGroup> nccl;
  };
  std::vector<Joined> joined;
  for (const Axis axis : all_axes) {
    std::vector<int> ranks = members(axis, layout, session.rank());
    if (ranks.size() == 1) continue;
    for (int& rank : ranks) rank += session.first_rank();
    const MPI_Comm comm = make_comm(ranks, axis);
    auto host = std::make_shared<MpiCommunicator>(comm, name_of(axis), ranks, session.ledger(), *mesh.traffic_,
                                                  session.checks_calls());
    if (axis == Axis::world && devices.kind == Device::cuda)
      mesh.transport_ = choose_transport(devices.transport, *host);
    // Replicas sum gradients and spread weights while ops go on; these two exchange what the next op reads.
    const Lane lane = axis == Axis::tp || axis == Axis::ep ? Lane::foreground : Lane::background;
    std::shared_ptr<NcclGroup> nccl;
    if (mesh.transport_.transport == Transport::nccl) {
      const auto same = std::find_if(joined.begin(), joined.end(),
                                     [&](const Joined& other) { return other.ranks == ranks && other.lane == lane; });
      nccl = same == joined.end() ? join_by_nccl(*host, name_of(axis), session.device_calls()) : same->nccl;
      joined.push_back({std::move(ranks), lane, nccl});
    }
    mesh.groups_[static_cast<std::size_t>(axis)] = std::make_shared<DeviceCommunicator>(
        std::move(host), std::move(nccl), NcclCommunicator::Place{name_of(axis), lane, session.checks_calls()},
        *mesh.traffic_, session.device_calls());
  }
  return mesh;
}

void Mesh::end_job_of_one(const std::exception& failure) const {
  if (!session_ || transport_.transport != Transport::nccl || dynamic_cast<const SharedFailure*>(&failure)) return;
  std::fprintf(stderr, "smoe: error (rank %d): %s\n", session_->rank(), failure.what());
  session_->abort(1);
}

}  // namespace smoe
