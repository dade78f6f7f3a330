// A group's communicator: tensors of the host go over MPI, those of a GPU over NCCL, or by way of the host where the mesh has none
// (transport.h). So whoever holds a group holds it from before there is a backend to after.
#pragma once

#include <memory>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/nccl.h"
#include "parallel/comm/communicator.h"
#include "parallel/comm/device_calls.h"
#include "parallel/comm/nccl_communicator.h"
#include "parallel/comm/traffic.h"

namespace smoe {

class DeviceCommunicator final : public Communicator {
 public:
  // nccl: of the same ranks in the same order; null: there is none. traffic and calls outlive it.
  DeviceCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<NcclGroup> nccl,
                     const NcclCommunicator::Place& place, Traffic& traffic, DeviceCalls& calls);
  ~DeviceCommunicator() override;
  DeviceCommunicator(const DeviceCommunicator&) = delete;
  DeviceCommunicator& operator=(const DeviceCommunicator&) = delete;

  void use(Backend& backend) override;  // no collective
  void leave(Backend& backend) noexcept override;

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override {
    of(x, label).all_reduce(x, op, label);
  }
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override { host_->all_reduce(x, op, label); }
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override {
    of(in, out, label).all_gather(in, out, label);
  }
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override {
    of(in, out, label).reduce_scatter(in, out, label);
  }
  void start_reduce_scatter(const Tensor& x, std::string_view label) override {
    of(x, label).start_reduce_scatter(x, label);
  }
  void finish_started() override;
  Started start_all_gather(const Tensor& in, const Tensor& out, std::string_view label) override {
    return of(in, out, label).start_all_gather(in, out, label);
  }
  void finish(Started started) override {  // the host's are done when they return
    if (device_) device_->finish(started);
  }
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override {
    of(in, out, label).all_to_all_v(in, send_rows, out, receive_rows, label);
  }
  void broadcast(const Tensor& x, int root, std::string_view label) override { of(x, label).broadcast(x, root, label); }
  void barrier(std::string_view label) override { host_->barrier(label); }

 private:
  Communicator& of(const Tensor& x, std::string_view label) const;
  Communicator& of(const Tensor& in, const Tensor& out, std::string_view label) const;

  std::shared_ptr<Communicator> host_;
  std::shared_ptr<NcclGroup> nccl_;
  NcclCommunicator::Place place_;
  Traffic& traffic_;
  DeviceCalls& calls_;
  Backend* backend_ = nullptr;
  std::unique_ptr<Communicator> device_;
};

}  // namespace smoe
