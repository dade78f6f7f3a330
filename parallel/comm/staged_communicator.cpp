#include "parallel/comm/staged_communicator.h"

#include <algorithm>

#include "parallel/comm/collective_checks.h"

namespace smoe {

StagedCommunicator::~StagedCommunicator() {
  for (Room* room : {&sent_, &received_, &started_[0].room, &started_[1].room}) release(*room);
}

void StagedCommunicator::release(Room& room) noexcept {
  if (room.data) backend_.release_host(room.data, room.bytes);
  room = {};
}

Tensor StagedCommunicator::in(Room& room, const Tensor& like) {
  const std::size_t bytes = std::max<std::size_t>(like.bytes(), 1);
  if (bytes > room.bytes) {
    release(room);
    room.data = backend_.allocate_host(bytes);
    room.bytes = bytes;
  }
  return Tensor(room.data, like.type(), like.shape());
}

Tensor StagedCommunicator::copied(Room& room, const Tensor& from) {
  const Tensor host = in(room, from);
  backend_.copy_to_host(host.raw(), from);
  return host;
}

void StagedCommunicator::all_reduce(const Tensor& x, Reduce op, std::string_view label) {
  const Tensor host = copied(sent_, x);
  host_.all_reduce(host, op, label);
  backend_.copy_from_host(x, host.raw());
}

void StagedCommunicator::all_gather(const Tensor& in_, const Tensor& out, std::string_view label) {
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_.all_gather(from, to, label);
  backend_.copy_from_host(out, to.raw());
}

void StagedCommunicator::reduce_scatter(const Tensor& in_, const Tensor& out, std::string_view label) {
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_.reduce_scatter(from, to, label);
  backend_.copy_from_host(out, to.raw());
}

// The other finishes one where a third is started; its result would lie in memory that the third is copied to. So both are
// finished here before.
void StagedCommunicator::start_reduce_scatter(const Tensor& x, std::string_view label) {
  Scattering& slot = started_[next_started_];
  next_started_ = 1 - next_started_;
  if (!slot.device.empty()) finish_started();
  slot.device = x;
  slot.host = copied(slot.room, x);
  host_.start_reduce_scatter(slot.host, label);
}

void StagedCommunicator::finish_started() {
  host_.finish_started();
  for (Scattering& slot : started_) {
    if (slot.device.empty()) continue;
    backend_.copy_from_host(part_of(slot.device, rank(), size()), part_of(slot.host, rank(), size()).raw());
    slot.device = slot.host = {};
  }
}

void StagedCommunicator::all_to_all_v(const Tensor& in_, std::span<const std::int64_t> send_rows, const Tensor& out,
                                      std::span<const std::int64_t> receive_rows, std::string_view label) {
  const Tensor from = copied(sent_, in_), to = in(received_, out);
  host_.all_to_all_v(from, send_rows, to, receive_rows, label);
  backend_.copy_from_host(out, to.raw());
}

void StagedCommunicator::broadcast(const Tensor& x, int root, std::string_view label) {
  const Tensor host = copied(sent_, x);
  host_.broadcast(host, root, label);
  backend_.copy_from_host(x, host.raw());
}

}  // namespace smoe
