#include <stdexcept>
#include <string>

#include "parallel/mesh.h"

namespace smoe {
namespace {

// Knows where it would be, and cannot be used.
class PlacedCommunicator final : public Communicator {
 public:
  PlacedCommunicator(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce(const Tensor&, Reduce, std::string_view label) override { refuse(label); }
  void all_reduce(std::span<double>, Reduce, std::string_view label) override { refuse(label); }
  void all_gather(const Tensor&, const Tensor&, std::string_view label) override { refuse(label); }
  void reduce_scatter(const Tensor&, const Tensor&, std::string_view label) override { refuse(label); }
  void start_reduce_scatter(const Tensor&, std::string_view label) override { refuse(label); }
  void finish_started() override { refuse("finish_started"); }
  void all_to_all_v(const Tensor&, std::span<const std::int64_t>, const Tensor&, std::span<const std::int64_t>,
                    std::string_view label) override {
    refuse(label);
  }
  void broadcast(const Tensor&, int, std::string_view label) override { refuse(label); }
  void barrier(std::string_view label) override { refuse(label); }

 private:
  [[noreturn]] void refuse(std::string_view label) const {
    throw std::logic_error(std::string(label) + ": this mesh is the place of rank " + std::to_string(rank_) + " of " +
                           std::to_string(size_) + " alone, there is nobody to talk to");
  }
  int rank_, size_;
};

}  // namespace

Mesh Mesh::placed(const Layout& layout, int rank) {
  if (!layout.divides() || rank < 0 || rank >= layout.ranks)
    throw std::logic_error("no rank " + std::to_string(rank) + " in " + layout.to_string());
  Mesh mesh = single();
  mesh.layout_ = layout;
  const auto place = [&](Axis axis, int at, int size) {
    if (size > 1) mesh.replace(axis, std::make_shared<PlacedCommunicator>(at, size));
  };
  place(Axis::world, rank, layout.ranks);
  place(Axis::dp, rank / layout.tp, layout.dp());
  place(Axis::tp, rank % layout.tp, layout.tp);
  place(Axis::edp, rank / layout.ep, layout.edp());
  place(Axis::ep, rank % layout.ep, layout.ep);
  return mesh;
}

}  // namespace smoe
