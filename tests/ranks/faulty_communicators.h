// Communicators that reduce gradients wrongly and pass everything else on: faults for the equivalence matrix to find.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm/communicator.h"

namespace smoe {

class PassingCommunicator : public Communicator {
 public:
  explicit PassingCommunicator(std::shared_ptr<Communicator> real) : real_(std::move(real)) {}

  int rank() const override { return real_->rank(); }
  int size() const override { return real_->size(); }
  void use(Backend& backend) override { real_->use(backend); }
  void leave(Backend& backend) noexcept override { real_->leave(backend); }
  void all_reduce(const Tensor& x, Reduce op, std::string_view label) override { real_->all_reduce(x, op, label); }
  void all_reduce(std::span<double> x, Reduce op, std::string_view label) override { real_->all_reduce(x, op, label); }
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override {
    real_->all_gather(in, out, label);
  }
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override {
    real_->reduce_scatter(in, out, label);
  }
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

// Leaves each rank with the gradients of its own tokens in some places, and sums everywhere else.
class LeavingOutCommunicator final : public PassingCommunicator {
 public:
  // left_out: gradients that are not summed; may be filled later.
  LeavingOutCommunicator(std::shared_ptr<Communicator> real, const std::vector<Tensor>& left_out)
      : PassingCommunicator(std::move(real)), left_out_(left_out) {}

  void start_reduce_scatter(const Tensor& x, std::string_view label) override {
    const std::int64_t part = x.elements() / size();
    const Tensor own = x.rows(rank() * part, part);
    own_.push_back({own, {own.f32(), own.f32() + part}});
    real_->start_reduce_scatter(x, label);
  }
  void finish_started() override {
    real_->finish_started();
    for (const auto& [part, before] : own_)
      for (std::int64_t i = 0; i < part.elements(); ++i)
        if (is_left_out(part.f32() + i)) part.f32()[i] = before[static_cast<std::size_t>(i)];
    own_.clear();
  }

 private:
  bool is_left_out(const float* place) const {
    for (const Tensor& gradient : left_out_)
      if (place >= gradient.f32() && place < gradient.f32() + gradient.elements()) return true;
    return false;
  }
  const std::vector<Tensor>& left_out_;
  std::vector<std::pair<Tensor, std::vector<float>>> own_;
};

}  // namespace smoe
