#include "parallel/comm/staged_communicator.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace smoe {

StagedCommunicator::StagedCommunicator(std::shared_ptr<Communicator> host) : host_(std::move(host)) {}

StagedCommunicator::~StagedCommunicator() {
  if (backend_) leave(*backend_);
}

void StagedCommunicator::use(Backend& backend) {
  if (backend_ && backend_ != &backend) leave(*backend_);
  backend_ = &backend;
}

void StagedCommunicator::leave(Backend& backend) noexcept {
  if (backend_ != &backend) return;
  for (Room* room : {&sent_, &received_, &started_[0].room, &started_[1].room}) release(*room);
  for (Started& started : started_) started.device = started.host = {};
  backend_ = nullptr;
}

void StagedCommunicator::release(Room& room) noexcept {
  if (room.data) backend_->release_host(room.data, room.bytes);
  room = {};
}

bool StagedCommunicator::is_here(const Tensor& x, std::string_view label) const {
  if (x.device() == Device::cpu) return true;
  if (!backend_ || backend_->device() != x.device())
    throw std::logic_error(std::string(label) + ": a tensor of a device whose backend the communicator was not given");
  return false;
}

Tensor StagedCommunicator::in(Room& room, const Tensor& like) {
  const std::size_t bytes = std::max<std::size_t>(like.bytes(), 1);
  if (bytes > room.bytes) {
    release(room);
    room.data = backend_->allocate_host(bytes);
    room.bytes = bytes;
  }
  return Tensor(room.data, like.type(), like.shape());
}

Tensor StagedCommunicator::copied(Room& room, const Tensor& from) {
  const Tensor host = in(room, from);
  backend_->copy_to_host(host.raw(), from);
  return host;
}

void StagedCommunicator::all_reduce(const Tensor& x, Reduce op, std::string_view label) {
  if (is_here(x, label)) return host_->all_reduce(x, op, label);
  const Tensor host = copied(sent_, x);
  host_->all_reduce(host, op, label);
  backend_->copy_from_host(x, host.raw());
}

void StagedCommunicator::all_gather(const Tensor& in_, const Tensor& out, std::string_view label) {
  if (is_here(in_, label)) return host_->all_gather(in_, out, label);
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_->all_gather(from, to, label);
  backend_->copy_from_host(out, to.raw());
}

void StagedCommunicator::reduce_scatter(const Tensor& in_, const Tensor& out, std::string_view label) {
  if (is_here(in_, label)) return host_->reduce_scatter(in_, out, label);
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_->reduce_scatter(from, to, label);
  backend_->copy_from_host(out, to.raw());
}

// The other finishes one where a third is started; its result would lie in memory that the third is copied to. So both are
// finished here before.
void StagedCommunicator::start_reduce_scatter(const Tensor& x, std::string_view label) {
  if (is_here(x, label)) return host_->start_reduce_scatter(x, label);
  Started& slot = started_[next_started_];
  next_started_ = 1 - next_started_;
  if (!slot.device.empty()) finish_started();
  slot.device = x;
  slot.host = copied(slot.room, x);
  host_->start_reduce_scatter(slot.host, label);
}

void StagedCommunicator::finish_started() {
  host_->finish_started();
  for (Started& slot : started_) {
    if (slot.device.empty()) continue;
    const auto own_part = [&](const Tensor& x) {
      const std::int64_t part = x.elements() / size();
      return x.reshape({x.elements()}).rows(rank() * part, part);
    };
    backend_->copy_from_host(own_part(slot.device), own_part(slot.host).raw());
    slot.device = slot.host = {};
  }
}

void StagedCommunicator::all_to_all_v(const Tensor& in_, std::span<const std::int64_t> send_rows, const Tensor& out,
                                      std::span<const std::int64_t> receive_rows, std::string_view label) {
  if (is_here(in_, label)) return host_->all_to_all_v(in_, send_rows, out, receive_rows, label);
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_->all_to_all_v(from, send_rows, to, receive_rows, label);
  backend_->copy_from_host(out, to.raw());
}

void StagedCommunicator::broadcast(const Tensor& x, int root, std::string_view label) {
  if (is_here(x, label)) return host_->broadcast(x, root, label);
  const Tensor host = copied(sent_, x);
  host_->broadcast(host, root, label);
  backend_->copy_from_host(x, host.raw());
}

}  // namespace smoe
