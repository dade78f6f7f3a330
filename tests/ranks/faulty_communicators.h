// Communicators that reduce gradients wrongly and pass everything else on: faults for the equivalence matrix to find.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace smoe {

class PassingCommunicator : public Communicator {
 public:
  explicit PassingCommunicator(std::shared_ptr<Communicator> real) : real_(std::move(real)) {}

  int rank() const override { return real_->rank(); }
  int size() const override { return real_->size(); }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override { real_->all_reduce(x, op, label); }
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override { real_->all_reduce(x, op, label); }
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override { real_->all_gather(in, out, label); }
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override { real_->reduce_scatter(in, out, label); }
  void start_reduce_scatter(const Tensor& x, std::string_view label) override { real_->start_reduce_scatter(x, label); }
  void finish_started() override { real_->finish_started(); }
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override {
    real_->all_to_all_v(in, send_rows, out, receive_rows, label);
  }
  void broadcast(const Tensor& x, int root, std::string_view label) override { real_->broadcast(x, root, label); }
  void barrier(std::string_view label) override { real_->barrier(label); }

 protected:
  std::shared_ptr<Communicator> real_;
};

// Averages the gradients that it should sum.
class MeanCommunicator final : public PassingCommunicator {
 public:
  using PassingCommunicator::PassingCommunicator;
  void start_reduce_scatter(const Tensor& x, std::string_view label) override {
    const std::int64_t part = x.elements() / size();
    means_.push_back(x.rows(rank() * part, part));
    real_->start_reduce_scatter(x, label);
  }
  void finish_started() override {
    real_->finish_started();
    for (const Tensor& part : means_)
      for (std::int64_t i = 0; i < part.elements(); ++i) part.f32()[i] /= static_cast<float>(size());
    means_.clear();
  }

 private:
  std::vector<Tensor> means_;
};

// Leaves each rank with the gradients of its own tokens.
class UnreducedCommunicator final : public PassingCommunicator {
 public:
  using PassingCommunicator::PassingCommunicator;
  void start_reduce_scatter(const Tensor&, std::string_view) override {}
  void finish_started() override {}
};

}  // namespace smoe
