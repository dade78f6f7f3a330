// A device's tensors over a communicator of host memory: they are copied to page-locked memory, sent from there, and copied
// back. What it sends and in which order is the other's.
#pragma once

#include <array>
#include <cstddef>

#include "kernels/backend.h"
#include "parallel/comm/communicator.h"

namespace smoe {

class StagedCommunicator final : public Communicator {
 public:
  // Both outlive it.
  StagedCommunicator(Communicator& host, Backend& backend) : host_(host), backend_(backend) {}
  ~StagedCommunicator() override;
  StagedCommunicator(const StagedCommunicator&) = delete;
  StagedCommunicator& operator=(const StagedCommunicator&) = delete;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override;
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override { host_.all_reduce(x, op, label); }
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override;
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override;
  void start_reduce_scatter(const Tensor& x, std::string_view label) override;
  void finish_started() override;
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override;
  void broadcast(const Tensor& x, int root, std::string_view label) override;
  void barrier(std::string_view label) override { host_.barrier(label); }

 private:
  // Page-locked memory that grows.
  struct Room {
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  // A reduce-scatter on its way.
  struct Scattering {
    Tensor device, host;  // empty: none
    Room room;
  };

  Tensor in(Room& room, const Tensor& like);
  Tensor copied(Room& room, const Tensor& from);
  void release(Room& room) noexcept;

  Communicator& host_;
  Backend& backend_;
  Room sent_, received_;
  std::array<Scattering, 2> started_;
  std::size_t next_started_ = 0;
};

}  // namespace smoe
