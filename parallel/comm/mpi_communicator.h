// Collectives over MPI, for tensors in host memory. Private to this folder, as MPI is.
//
// Every collective is built from point-to-point messages between each pair of the group. That costs n - 1 messages a
// rank, and buys what the library's own collectives do not promise: sums in rank order, bytes that can be counted,
// waiting that can be watched (a rank knows whom it waits for), and reduce-scatters that go on in the background.
//
// A message's tag carries the call's number in its group and a hash of what was called, so ranks that call different
// collectives never take each other's data: they wait, and the watchdog names them.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface only
#include <mpi.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "parallel/comm/collective_checks.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/ledger.h"
#include "parallel/comm/traffic.h"

namespace smoe {

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `comm`, whose ranks are `world_ranks` of the job, in order. axis: for diagnostics, a literal.
  // check_calls: before each collective the group compares what its ranks are about to call; a difference throws.
  MpiCommunicator(MPI_Comm comm, std::string_view axis, std::vector<int> world_ranks, Ledger& ledger, Traffic& traffic,
                  bool check_calls);
  ~MpiCommunicator() override;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override;
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override;
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override;
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override;
  void start_reduce_scatter(const Tensor& x, std::string_view label) override;
  void finish_started() override;
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override;
  void broadcast(const Tensor& x, int root, std::string_view label) override;
  void barrier(std::string_view label) override;

 private:
  class Call;  // one collective, from entering to leaving
  struct Bytes {
    std::byte* data = nullptr;
    std::size_t size = 0;
  };
  // Messages on their way, and the rank of the world at each one's other end.
  struct Messages {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
  };
  // A reduce-scatter whose messages are on their way.
  struct Scattering {
    Tensor x;
    std::string_view label;
    Messages messages;
    std::vector<std::byte> arrived;
    bool active = false;
  };

  template <class Outgoing, class Incoming>
  void post(Call& call, const Outgoing& outgoing, const Incoming& incoming, Messages& messages);
  template <class Outgoing, class Incoming>
  void exchange(Call& call, const Outgoing& outgoing, const Incoming& incoming);
  template <class T>
  void reduce_in_place(Call& call, T* x, std::int64_t n, Reduce op);
  template <class T>
  void reduce_arrived(T* out, const T* own, const T* arrived, std::int64_t n, Reduce op) const;
  void sum_arrived(const Tensor& out, const Tensor& own, const std::byte* arrived) const;
  void send(Call& call, Bytes bytes, int to, Messages& messages);
  void receive(const Call& call, Bytes bytes, int from, Messages& messages);
  void wait(Messages& messages);
  void check_same_call(const CollectiveCall& described, std::uint64_t number);
  void complete(Scattering& started);
  std::byte* staging(std::size_t bytes);

  MPI_Comm comm_;
  std::string_view axis_;
  std::vector<int> world_ranks_;
  Ledger& ledger_;
  Traffic& traffic_;
  bool check_calls_;
  int rank_ = 0, size_ = 1;
  std::uint64_t calls_ = 0;
  Messages messages_;  // of the collective that this rank is in
  std::vector<int> awaited_;
  std::vector<std::byte> staging_;
  RowPlaces rows_;  // of an all_to_all_v
  std::array<Scattering, 2> started_;
  std::size_t next_started_ = 0;  // the slot of the next one, and so the older of the two
};

}  // namespace smoe
