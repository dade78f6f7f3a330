// The wire of the emulated NCCL where there are ranks: messages of MPI, on tags of their own. Linked into a program, it is used.
#define OMPI_SKIP_MPICXX 1  // the C interface only
#include <mpi.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "nccl.h"

namespace cuda_on_host {
namespace {

constexpr int joining_tag = 1 << 21;  // and from there on one for each group of a root

class Messages final : public Wire {
 public:
  void fill(ncclUniqueId& id) override {
    const int address[2] = {world_rank(), made_++};
    std::memcpy(id.internal, address, sizeof address);
  }

  // Every rank tells the first of the group who it is, which tells all of them.
  int join(const ncclUniqueId& id, int size, int rank) override {
    int address[2];
    std::memcpy(address, id.internal, sizeof address);
    const auto [root, number] = std::pair(address[0], address[1]);
    const int tag = joining_tag + number;
    std::vector<int> members(static_cast<std::size_t>(size));
    members[static_cast<std::size_t>(rank)] = world_rank();
    if (rank == 0) {
      if (world_rank() != root) throw std::logic_error("NCCL: the address is not that of the group's first rank");
      for (int q = 1; q < size; ++q) {
        int told[2];
        MPI_Recv(told, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        members[static_cast<std::size_t>(told[0])] = told[1];
      }
      for (int q = 1; q < size; ++q)
        MPI_Send(members.data(), size, MPI_INT, members[static_cast<std::size_t>(q)], tag, MPI_COMM_WORLD);
    } else {
      const int told[2] = {rank, world_rank()};
      MPI_Send(told, 2, MPI_INT, root, tag, MPI_COMM_WORLD);
      MPI_Recv(members.data(), size, MPI_INT, root, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Group world, group;
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, size, members.data(), &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, tag, &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    comms_.push_back(comm);
    return static_cast<int>(comms_.size()) - 1;
  }

  void exchange(int group, int, const std::vector<Parcel>& sent, const std::vector<Parcel>& received) override {
    const MPI_Comm comm = comms_[static_cast<std::size_t>(group)];
    std::vector<MPI_Request> requests;
    for (const Parcel& p : received)
      MPI_Irecv(p.to, static_cast<int>(p.bytes), MPI_BYTE, p.peer, 0, comm, &requests.emplace_back());
    for (const Parcel& p : sent)
      MPI_Isend(p.from, static_cast<int>(p.bytes), MPI_BYTE, p.peer, 0, comm, &requests.emplace_back());
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  }

 private:
  static int world_rank() {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
  }

  int made_ = 0;
  std::vector<MPI_Comm> comms_;
};

const bool used = (set_wire(std::make_unique<Messages>()), true);

}  // namespace
}  // namespace cuda_on_host
