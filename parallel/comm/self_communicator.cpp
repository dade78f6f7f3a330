#include <cstring>
#include <stdexcept>
#include <string>

#include "parallel/comm/communicator.h"

namespace smoe {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(const Tensor&, Reduce, std::string_view) override {}
  void all_reduce(std::span<double>, Reduce, std::string_view) override {}
  void all_gather(const Tensor& in, const Tensor& out, std::string_view label) override { move(in, out, label); }
  void reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) override { move(in, out, label); }
  void start_reduce_scatter(const Tensor&, std::string_view) override {}
  void finish_started() override {}
  void all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                    std::span<const std::int64_t> receive_rows, std::string_view label) override {
    if (send_rows.size() != 1 || receive_rows.size() != 1 || send_rows[0] != receive_rows[0])
      throw std::logic_error(std::string(label) + ": a group of one receives what it sends");
    move(in.rows(0, send_rows[0]), out.rows(0, receive_rows[0]), label);
  }
  void broadcast(const Tensor&, int root, std::string_view label) override {
    if (root != 0) throw std::logic_error(std::string(label) + ": a group of one has only rank 0");
  }
  void barrier(std::string_view) override {}

 private:
  static void move(const Tensor& in, const Tensor& out, std::string_view label) {
    if (in.bytes() != out.bytes() || in.type() != out.type())
      throw std::logic_error(std::string(label) + ": " + in.shape().to_string() + " into " + out.shape().to_string());
    if (in.raw() == out.raw() || in.bytes() == 0) return;
    if (in.device() != Device::cpu || out.device() != Device::cpu)
      throw std::logic_error(std::string(label) + ": a group of one moves host memory only");
    std::memmove(out.raw(), in.raw(), in.bytes());
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace smoe
