#include "parallel/comm/device_calls.h"

#include <algorithm>
#include <exception>

namespace smoe {

void DeviceCalls::watch(const NcclGroup& group) {
  const std::lock_guard lock(mutex_);
  groups_.push_back(&group);
}

void DeviceCalls::forget(const NcclGroup& group, CommunicationStream& stream) {
  const std::lock_guard lock(mutex_);
  std::erase(groups_, &group);
  std::erase_if(queues_, [&](const Queue& queue) { return queue.stream == &stream; });
}

void DeviceCalls::add(CommunicationStream& stream, std::uint64_t point, const CollectiveCall& call) {
  const std::lock_guard lock(mutex_);
  auto queue = std::find_if(queues_.begin(), queues_.end(), [&](const Queue& of) { return of.stream == &stream; });
  if (queue == queues_.end()) {
    queues_.push_back({&stream, std::vector<Queued>(CommunicationStream::points_kept), 0, 0});
    queue = queues_.end() - 1;
  }
  const std::size_t capacity = queue->ring.size();
  if (queue->count == capacity) {
    queue->first = (queue->first + 1) % capacity;
    --queue->count;
  }
  queue->ring[(queue->first + queue->count) % capacity] = {++added_, point, call};
  ++queue->count;
}

std::string DeviceCalls::look(NumberedLedger& device) {
  const std::lock_guard lock(mutex_);
  const Queued* oldest = nullptr;
  try {
    for (Queue& queue : queues_) {
      const auto front = [&]() -> const Queued& { return queue.ring[queue.first]; };
      while (queue.count > 0 && queue.stream->is_past(front().point)) {
        queue.first = (queue.first + 1) % queue.ring.size();
        --queue.count;
      }
      if (queue.count > 0 && (!oldest || front().number < oldest->number)) oldest = &front();
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  if (const std::uint64_t number = oldest ? oldest->number : 0; number != shown_) {
    if (oldest)
      device.enter(oldest->call, number);
    else
      device.leave();
    shown_ = number;
  }
  for (const NcclGroup* group : groups_)
    if (std::string trouble = group->trouble(); !trouble.empty()) return trouble;
  return {};
}

}  // namespace smoe
