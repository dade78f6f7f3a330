// Collectives between GPUs by NCCL, one GPU a rank. Every call is queued on a stream beside the ops', behind the ops that were
// called before; ops that are called after it wait for it on the device. The host never waits.
//
// Sums of bf16 are NCCL's for no one: it would round at each step between two ranks. The ranks' parts are sent to whom they
// belong, and added there in f32, in rank order, and rounded once (Backend::sum_rows).
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/communication_stream.h"
#include "kernels/nccl.h"
#include "parallel/comm/collective_checks.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/device_calls.h"
#include "parallel/comm/traffic.h"

namespace smoe {

class NcclCommunicator final : public Communicator {
 public:
  struct Place {
    std::string_view axis;  // a literal
    Lane lane = Lane::foreground;
    // Before each call the ranks of the group meet, which names those that call something else.
    bool check_calls = false;
  };

  // host: of the same ranks in the same order; it takes numbers of the host, and outlives this, as do the others.
  NcclCommunicator(Communicator& host, Backend& backend, std::shared_ptr<NcclGroup> group, const Place& place,
                   Traffic& traffic, DeviceCalls& calls);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override;
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override { host_.all_reduce(x, op, label); }
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override;
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override;
  // More than two may be on their way: none needs memory.
  void start_reduce_scatter(const Tensor& x, std::string_view label) override;
  void finish_started() override;
  Started start_all_gather(const Tensor& in, const Tensor& out, std::string_view label) override;
  void finish(Started started) override;
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override;
  void broadcast(const Tensor& x, int root, std::string_view label) override;
  void barrier(std::string_view label) override { host_.barrier(label); }

 private:
  class Call;
  class Together;
  // The ranks' tensors like x, [ranks, elements], of which each gets from each what is its own.
  Tensor room_for(const Tensor& x, std::int64_t elements);
  std::int64_t sent_bytes(std::size_t whole) const;  // (n - 1) / n of them

  Communicator& host_;
  Backend& backend_;
  Place place_;
  Traffic& traffic_;
  DeviceCalls& calls_;
  CommunicationStream& stream_;
  std::shared_ptr<NcclGroup> group_;
  RowPlaces rows_;
  Tensor room_;
  std::size_t room_bytes_ = 0;
  int failures_at_birth_ = std::uncaught_exceptions();
  std::uint64_t last_scatter_ = 0;  // the point behind the last that was started; 0: none
};

// NCCL's part of a group, which all its ranks make together: they meet over host.
std::shared_ptr<NcclGroup> join_by_nccl(Communicator& host, std::string_view axis, DeviceCalls& calls);

}  // namespace smoe
